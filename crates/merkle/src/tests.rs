//! What the modules do together: published vectors, a naive second implementation, hostile input.

mod keys;
mod texts;
mod tree;
