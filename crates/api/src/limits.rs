//! How much a stranger may send. The server enforces these; clients read them to split their work.

/// Bytes of a request body, except for [`BATCH_BODY_BYTES`].
pub const BODY_BYTES: usize = 64 * 1024;
/// Bytes of the body of a batch enrolment: a thousand requests of an RSA-4096 key fit.
pub const BATCH_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of all request headers together.
pub const HEADER_BYTES: usize = 16 * 1024;
/// Items of one batch enrolment.
pub const BATCH_ITEMS: usize = 1000;
/// Bytes of one certificate request, as DER. RSA-4096 with a few names stays under 4 KiB.
pub const CSR_BYTES: usize = 16 * 1024;
/// Bytes of one certificate that a caller shows, as DER.
pub const CERTIFICATE_BYTES: usize = 16 * 1024;
/// Certificates in a chain that a caller shows as evidence.
pub const CHAIN_CERTIFICATES: usize = 8;
/// Bytes of a bare public key, as DER.
pub const PUBLIC_KEY_BYTES: usize = 2 * 1024;
/// Bytes of any other binary field.
pub const BINARY_FIELD_BYTES: usize = 2 * 1024;
/// Characters of an idempotency key.
pub const IDEMPOTENCY_KEY_CHARACTERS: usize = 128;
/// How long, in seconds, the server remembers an idempotency key.
pub const IDEMPOTENCY_SECONDS: u64 = 24 * 60 * 60;
/// Characters of a note that goes into the log.
pub const NOTE_CHARACTERS: usize = 1024;
/// Bytes of a join token's text.
pub const TOKEN_BYTES: usize = 512;
/// Members of a page when the caller does not say.
pub const PAGE_DEFAULT: usize = 100;
/// Members of a page at most.
pub const PAGE_MAXIMUM: usize = 1000;
/// Characters of a page's cursor.
pub const CURSOR_CHARACTERS: usize = 512;
/// Serial numbers that the answer to a revocation lists; the count is always complete.
pub const LISTED_SERIALS: usize = 1000;
/// Serial numbers in one question about status.
pub const STATUS_SERIALS: usize = 1000;
/// Hours over which renewals that are asked for may be spread.
pub const RENEWAL_HOURS: u64 = 24;
/// Log entries in one answer.
pub const LOG_ENTRIES: u64 = 1000;
/// Bytes of an OCSP request (RFC 6960); more than 20 CertIDs with SHA-256.
pub const OCSP_BYTES: usize = 4 * 1024;
/// Parameters that a token for a template may fix, and claims in a policy question.
pub const PARAMETERS: usize = 64;
/// Claims about one process.
pub const WORKLOAD_CLAIMS: usize = 256;
/// Bytes of the names and values of all claims about one process.
pub const WORKLOAD_CLAIM_BYTES: usize = 32 * 1024;
/// Audiences of one JWT-SVID.
pub const AUDIENCES: usize = 16;
/// Characters of one audience.
pub const AUDIENCE_CHARACTERS: usize = 512;
/// How long, in seconds, a nonce for a proof of possession may be used.
pub const NONCE_SECONDS: u64 = 120;
