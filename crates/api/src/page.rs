//! Long lists, a page at a time.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::limits;

/// Which page.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Members of a page; 100 if absent, 1000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where to go on: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The members.
    pub items: Vec<T>,
    /// The cursor of the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Where a list goes on: the sort key of the last member sent, opaque to callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub Vec<u8>);

/// A text is not a cursor that we gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor; use `next` of the page before, or leave it out to begin at the start")]
pub struct CursorError;

impl Cursor {
    /// The text form.
    #[must_use]
    pub fn to_text(&self) -> String {
        BASE64URL_NOPAD.encode(&self.0)
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// [`CursorError`] when it is too long or not of our making.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        if text.is_empty() || text.len() > limits::CURSOR_CHARACTERS {
            return Err(CursorError);
        }
        BASE64URL_NOPAD.decode(text.as_bytes()).map(Self).map_err(|_| CursorError)
    }
}

impl PageQuery {
    /// How many members to send: what was asked for, at least one, at most [`limits::PAGE_MAXIMUM`].
    #[must_use]
    pub fn size(&self) -> usize {
        self.limit.unwrap_or(limits::PAGE_DEFAULT).clamp(1, limits::PAGE_MAXIMUM)
    }

    /// Where to begin; nothing for the first page.
    ///
    /// # Errors
    /// [`CursorError`].
    pub fn start(&self) -> Result<Option<Cursor>, CursorError> {
        self.cursor.as_deref().map(Cursor::parse).transpose()
    }
}

macro_rules! paged {
    ($name:ident) => {
        impl $name {
            /// Which page of the matches.
            #[must_use]
            pub fn page(&self) -> $crate::PageQuery {
                $crate::PageQuery { limit: self.limit, cursor: self.cursor.clone() }
            }
        }
    };
}
pub(crate) use paged;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_never_empty_by_request_and_never_huge() {
        let size = |limit| PageQuery { limit, cursor: None }.size();
        assert_eq!(size(None), limits::PAGE_DEFAULT);
        assert_eq!(size(Some(0)), 1);
        assert_eq!(size(Some(usize::MAX)), limits::PAGE_MAXIMUM);
    }

    #[test]
    fn cursors_survive_the_wire_and_others_are_refused() {
        let cursor = Cursor(vec![0, 255, 7]);
        assert_eq!(Cursor::parse(&cursor.to_text()), Ok(cursor));
        assert_eq!(Cursor::parse(""), Err(CursorError));
        assert_eq!(Cursor::parse("a b"), Err(CursorError));
        assert_eq!(Cursor::parse(&"A".repeat(600)), Err(CursorError));
    }
}
