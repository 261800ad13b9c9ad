//! Who is allowed, as operators write it: a SPIFFE ID, or all below one.

use chancery_types::SpiffeId;
use chancery_verify::live::Allowed;

/// Peers that are allowed.
#[derive(Debug, Clone)]
pub struct Peers(Allowed);

impl Peers {
    /// Reads `spiffe://example.org/web` and `spiffe://example.org/ns/prod/*`, which stands for all whose path goes on
    /// behind `prod` by whole segments, and `spiffe://example.org/*` for every member.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        if texts.is_empty() {
            return Err("nobody is allowed; name SPIFFE IDs".to_owned());
        }
        let mut allowed = Allowed::default();
        for text in texts {
            let id = |text: &str| text.parse::<SpiffeId>().map_err(|error| format!("{text:?}: {error}"));
            allowed = allowed.or(match text.strip_suffix("/*") {
                None => {
                    let id = id(text)?;
                    if id.path().is_empty() {
                        return Err(format!(
                            "{text:?} is a trust domain; write {text}/* for all of its members"
                        ));
                    }
                    Allowed::ids([id])
                }
                Some(prefix) => match id(prefix)? {
                    domain if domain.path().is_empty() => Allowed::members_of(domain.trust_domain()),
                    prefix => Allowed::below(prefix),
                },
            });
        }
        Ok(Self(allowed))
    }

    /// For a judge.
    #[must_use]
    pub fn allowed(&self) -> Allowed {
        self.0.clone()
    }

    /// Whether a peer is among them.
    #[must_use]
    pub fn allows(&self, id: &SpiffeId) -> bool {
        self.0.allows(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_what_is_below_them() {
        let peers =
            |texts: &[&str]| Peers::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        for (text, id, expected) in [
            ("spiffe://a.org/web", "spiffe://a.org/web", true),
            ("spiffe://a.org/web", "spiffe://a.org/web/1", false),
            ("spiffe://a.org/prod/*", "spiffe://a.org/prod/web", true),
            ("spiffe://a.org/prod/*", "spiffe://a.org/production", false),
            ("spiffe://a.org/*", "spiffe://a.org/web", true),
            ("spiffe://a.org/*", "spiffe://b.org/web", false),
        ] {
            assert_eq!(peers(&[text]).unwrap().allows(&id.parse().unwrap()), expected, "{text} {id}");
        }
        for wrong in [&[][..], &["*"], &["web"], &["spiffe://a.org"], &["spiffe://a.org/*/b"]] {
            assert!(peers(wrong).is_err(), "{wrong:?}");
        }
    }
}
