//! The messages of Envoy's external authorization, as `proto/envoy` defines them.
//!
//! The code under `proto/generated` is checked in and held equal to the definitions by `tests/generated.rs`.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]

pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                include!("../../proto/generated/envoy.config.core.v3.rs");
            }
        }
    }
    pub mod service {
        pub mod auth {
            pub mod v3 {
                include!("../../proto/generated/envoy.service.auth.v3.rs");
            }
        }
    }
    pub mod r#type {
        pub mod v3 {
            include!("../../proto/generated/envoy.r#type.v3.rs");
        }
    }
}

pub mod google {
    pub mod rpc {
        include!("../../proto/generated/google.rpc.rs");
    }
}
