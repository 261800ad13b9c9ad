//! The messages and services of the doors, as `proto/*.proto` define them.
//!
//! The code under `proto/generated` is checked in and held equal to the definitions by `tests/generated.rs`.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]

use std::fmt;

/// The SPIFFE Workload API.
pub mod workload {
    include!("../proto/generated/spiffe.workload.rs");
}

/// What Envoy's secret discovery service needs of Envoy's API.
pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                include!("../proto/generated/envoy.config.core.v3.rs");
            }
        }
    }
    pub mod extensions {
        pub mod transport_sockets {
            pub mod tls {
                pub mod v3 {
                    include!("../proto/generated/envoy.extensions.transport_sockets.tls.v3.rs");
                }
            }
        }
    }
    pub mod service {
        pub mod discovery {
            pub mod v3 {
                include!("../proto/generated/envoy.service.discovery.v3.rs");
            }
        }
        pub mod secret {
            pub mod v3 {
                include!("../proto/generated/envoy.service.secret.v3.rs");
            }
        }
    }
}

/// What errors are made of.
pub mod google {
    pub mod rpc {
        include!("../proto/generated/google.rpc.rs");
    }
}

/// All definitions, for server reflection: an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!("../proto/generated/descriptors.bin");

/// Messages that hold keys or tokens show none of it.
macro_rules! redacted {
    ($($message:ty),*) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(concat!(stringify!($message), " [redacted]"))
            }
        }
    )*};
}

redacted!(
    workload::X509svid,
    workload::Jwtsvid,
    workload::ValidateJwtsvidRequest,
    envoy::config::core::v3::DataSource,
    envoy::config::core::v3::data_source::Specifier
);
