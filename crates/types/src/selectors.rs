//! A set of claims to ask for, which hold together or not at all.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Claims;

/// What claims must be or contain: several claims, and several texts of one claim, such as two labels of one pod.
///
/// Written as an object of texts, and of lists of texts where one claim is asked for several:
/// `{"unix.uid": "1000", "k8s.pod_label": ["app:web", "tier:front"]}`. A list that is empty, and a claim that is
/// named twice, would ask for less than whoever wrote it meant, and are refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Selectors(BTreeMap<String, BTreeSet<String>>);

impl Selectors {
    /// Asks for nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for one more text of a claim; false if that was asked for already.
    pub fn add(&mut self, claim: impl Into<String>, text: impl Into<String>) -> bool {
        self.0.entry(claim.into()).or_default().insert(text.into())
    }

    /// How many texts are asked for, of all claims together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether anything is asked for of this claim.
    #[must_use]
    pub fn names(&self, claim: &str) -> bool {
        self.0.contains_key(claim)
    }

    /// Every claim with a text that it must be or contain, in the order of the claims and then of the texts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(claim, texts)| texts.iter().map(|text| (claim.as_str(), text.as_str())))
    }

    /// Whether these claims are or contain all that is asked for. Nothing asked for: no, because nothing has been
    /// proved.
    #[must_use]
    pub fn fulfilled_by(&self, claims: &Claims) -> bool {
        !self.is_empty() && self.iter().all(|(claim, text)| claims.holds(claim, text))
    }
}

impl<C: Into<String>, T: Into<String>> FromIterator<(C, T)> for Selectors {
    fn from_iter<I: IntoIterator<Item = (C, T)>>(pairs: I) -> Self {
        let mut selectors = Self::new();
        for (claim, text) in pairs {
            selectors.add(claim, text);
        }
        selectors
    }
}

impl<C: Into<String>, T: Into<String>, const N: usize> From<[(C, T); N]> for Selectors {
    fn from(pairs: [(C, T); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl Serialize for Selectors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(claim, texts)| (claim, Texts(texts.clone()))))
    }
}

impl<'de> Deserialize<'de> for Selectors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SelectorsVisitor)
    }
}

struct SelectorsVisitor;

impl<'de> Visitor<'de> for SelectorsVisitor {
    type Value = Selectors;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of claims, each with a text or a list of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Selectors, A::Error> {
        let mut selectors = BTreeMap::new();
        while let Some((claim, Texts(texts))) = map.next_entry::<String, Texts>()? {
            match selectors.entry(claim) {
                btree_map::Entry::Vacant(vacant) => vacant.insert(texts),
                btree_map::Entry::Occupied(claim) => {
                    let claim = claim.key();
                    return Err(de::Error::custom(format_args!(
                        "{claim:?} is named twice; write its texts as one list"
                    )));
                }
            };
        }
        Ok(Selectors(selectors))
    }
}

/// What one claim is asked for: never nothing.
struct Texts(BTreeSet<String>);

impl Serialize for Texts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.first() {
            Some(only) if self.0.len() == 1 => serializer.serialize_str(only),
            _ => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Texts, E> {
        Ok(Texts(BTreeSet::from([text.to_owned()])))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
        let mut texts = BTreeSet::new();
        while let Some(text) = list.next_element()? {
            texts.insert(text);
        }
        if texts.is_empty() {
            return Err(de::Error::custom("a list of texts is empty, so that anything would fulfil it"));
        }
        Ok(Texts(texts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClaimValue;

    fn read(text: &str) -> Result<Selectors, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn one_text_and_several_are_written_as_they_are_read() {
        for text in [
            r#"{}"#,
            r#"{"unix.uid":"1000"}"#,
            r#"{"k8s.ns":"shop","k8s.pod_label":["app:web","tier:front"]}"#,
        ] {
            assert_eq!(serde_json::to_string(&read(text).unwrap()).unwrap(), text);
        }
        let alone = read(r#"{"unix.uid":["1000"]}"#).unwrap();
        assert_eq!(alone, Selectors::from([("unix.uid", "1000")]));
        assert_eq!(serde_json::to_string(&alone).unwrap(), r#"{"unix.uid":"1000"}"#);
    }

    #[test]
    fn every_text_of_a_claim_must_hold() {
        let wanted = read(r#"{"k8s.pod_label":["app:web","tier:front"]}"#).unwrap();
        let mut claims = Claims::new();
        claims.insert("k8s.pod_label", "app:web");
        assert!(!wanted.fulfilled_by(&claims));
        let labels = ["app:web", "team:shop", "tier:front"].map(str::to_owned);
        claims.insert("k8s.pod_label", ClaimValue::List(labels.into()));
        assert!(wanted.fulfilled_by(&claims));
        assert_eq!(wanted.len(), 2);
        assert!(!Selectors::new().fulfilled_by(&claims), "nothing asked for proves nothing");
    }

    #[test]
    fn refuses_what_asks_for_less_than_was_meant() {
        for text in [
            r#"{"unix.uid":[]}"#,
            r#"{"unix.uid":"1","unix.uid":"2"}"#,
            r#"{"unix.uid":1000}"#,
            r#"{"unix.uid":null}"#,
            r#"{"unix.uid":["1",["2"]]}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
