//! The doors: REST on rustls, operator authentication, limits, health and metrics.
