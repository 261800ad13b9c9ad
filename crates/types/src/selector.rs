//! A claim and the text it must hold, written as users of SPIRE know it: `unix:uid:1000`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Claims;

/// A text is not a selector, or a claim cannot be written as one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a selector like unix:uid:1000 or k8s:pod-label:app:web, got {0:?}")]
pub struct SelectorError(String);

/// One fact to ask for: the claim `unix.uid` and the text `1000` are `unix:uid:1000`. The text may have colons of
/// its own: `k8s:pod-label:app:web` asks for the label `app:web`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    claim: String,
    text: String,
}

impl Selector {
    /// Asks that a claim be, or contain, a text.
    ///
    /// # Errors
    /// [`SelectorError`] when the claim's name is not of the form `kind.name`, or the text is empty, too long or
    /// holds control characters.
    pub fn new(claim: &str, text: &str) -> Result<Self, SelectorError> {
        let error = || SelectorError(format!("{claim}={text}").chars().take(80).collect());
        let (kind, name) = claim.split_once('.').ok_or_else(error)?;
        let fits = is_word(kind) && is_word(name) && is_text(text);
        fits.then(|| Self { claim: claim.to_owned(), text: text.to_owned() }).ok_or_else(error)
    }

    /// Every selector that these claims satisfy, in the order of the claims.
    #[must_use]
    pub fn satisfied_by(claims: &Claims) -> Vec<Self> {
        claims
            .iter()
            .flat_map(|(claim, value)| value.texts().into_iter().map(move |text| (claim, text)))
            .filter_map(|(claim, text)| Self::new(claim, &text).ok())
            .collect()
    }

    /// The claim's name: `unix.uid`.
    #[must_use]
    pub fn claim(&self) -> &str {
        &self.claim
    }

    /// What it must be or contain: `1000`.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether these claims hold it.
    #[must_use]
    pub fn holds(&self, claims: &Claims) -> bool {
        claims.holds(&self.claim, &self.text)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = self.claim.split_once('.').unwrap_or((&self.claim, ""));
        if let Some((_, _, alias)) = ALIASES.iter().find(|(of, claim, _)| (*of, *claim) == (kind, name)) {
            return write!(formatter, "{kind}:{alias}:{}", self.text);
        }
        match kind {
            KUBERNETES => write!(formatter, "{kind}:{}:{}", name.replace('_', "-"), self.text),
            _ => write!(formatter, "{kind}:{name}:{}", self.text),
        }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(selector: &str) -> Result<Self, Self::Err> {
        let error = || SelectorError(selector.chars().take(80).collect());
        let (kind, rest) = selector.split_once(':').ok_or_else(error)?;
        let (name, text) = rest.split_once(':').ok_or_else(error)?;
        if kind.contains('.') {
            return Err(error());
        }
        let name = match ALIASES.iter().find(|(of, _, alias)| (*of, *alias) == (kind, name)) {
            Some((_, claim, _)) => (*claim).to_owned(),
            None if kind == KUBERNETES => name.replace('-', "_"),
            None => name.to_owned(),
        };
        Self::new(&format!("{kind}.{name}"), text).map_err(|_| error())
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn is_word(word: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
    (1..=MAX_WORD).contains(&word.len()) && word.bytes().all(fits)
}

fn is_text(text: &str) -> bool {
    (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The only kind whose selectors have dashes where the claims have underscores.
const KUBERNETES: &str = "k8s";

/// Kind, name of the claim, and what SPIRE calls it.
const ALIASES: [(&str, &str, &str); 2] =
    [(KUBERNETES, "image", "container-image"), ("systemd", "unit", "id")];

const MAX_WORD: usize = 64;

/// The longest path that Linux takes.
const MAX_TEXT: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ClaimValue;

    #[test]
    fn claims_and_selectors_are_two_spellings_of_one_thing() {
        for (selector, claim, text) in [
            ("unix:uid:1000", "unix.uid", "1000"),
            ("unix:supplementary_gid:4", "unix.supplementary_gid", "4"),
            ("unix:path:/usr/bin/x: y", "unix.path", "/usr/bin/x: y"),
            ("systemd:id:nginx.service", "systemd.unit", "nginx.service"),
            ("docker:label:com.example:web", "docker.label", "com.example:web"),
            ("docker:image_id:sha256:00", "docker.image_id", "sha256:00"),
            ("k8s:ns:default", "k8s.ns", "default"),
            ("k8s:pod-label:app:web", "k8s.pod_label", "app:web"),
            ("k8s:container-image:docker.io/x@sha256:00", "k8s.image", "docker.io/x@sha256:00"),
        ] {
            let parsed: Selector = selector.parse().unwrap();
            assert_eq!((parsed.claim(), parsed.text()), (claim, text));
            assert_eq!(parsed.to_string(), selector);
            assert_eq!(Selector::new(claim, text).unwrap(), parsed);
        }
    }

    #[test]
    fn reads_our_own_names_where_spire_has_others() {
        for (ours, theirs) in
            [("k8s:image:x", "k8s:container-image:x"), ("systemd:unit:a.service", "systemd:id:a.service")]
        {
            assert_eq!(ours.parse::<Selector>().unwrap().to_string(), theirs);
        }
    }

    #[test]
    fn refuses_what_is_not_a_selector() {
        for text in ["", "unix", "unix:uid", "unix:uid:", ":uid:1", "unix::1", "UNIX:uid:1", "unix:u d:1"] {
            assert!(text.parse::<Selector>().is_err(), "{text:?}");
        }
        assert!("unix:path:/a\nb".parse::<Selector>().is_err());
        assert!("un.ix:uid:1".parse::<Selector>().is_err());
        assert!(Selector::new("uid", "1").is_err());
        assert!(format!("unix:path:{}", "x".repeat(MAX_TEXT + 1)).parse::<Selector>().is_err());
    }

    #[test]
    fn finds_every_selector_that_claims_satisfy() {
        let mut claims = Claims::new();
        claims.insert("unix.uid", ClaimValue::Number(1000));
        claims.insert("k8s.pod_label", ClaimValue::List(vec!["app:web".into(), "tier:front".into()]));
        claims.insert("k8s.ns", "");
        let found: Vec<_> = Selector::satisfied_by(&claims).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["k8s:pod-label:app:web", "k8s:pod-label:tier:front", "unix:uid:1000"]);
        assert!(Selector::satisfied_by(&claims).iter().all(|selector| selector.holds(&claims)));
        assert!(!"unix:uid:100".parse::<Selector>().unwrap().holds(&claims));
    }

    proptest! {
        #[test]
        fn what_it_prints_it_reads(text in "[a-z0-9_-]{1,5}:[a-z0-9_.-]{1,20}:[ -~]{1,30}") {
            let selector: Selector = text.parse().unwrap();
            prop_assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
        }
    }
}
