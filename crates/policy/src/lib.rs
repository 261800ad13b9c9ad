//! Decides: attested identity, request and context to an approval or a refusal that teaches.
