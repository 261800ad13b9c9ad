//! RFC 6962 tree hashing and the C2SP formats of a transparency log: checkpoints, tiles, proofs.
