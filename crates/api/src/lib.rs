//! Request, response and problem types of the HTTP interface.
