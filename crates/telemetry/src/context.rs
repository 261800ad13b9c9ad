//! The context of a trace on the wire: W3C Trace Context, level 1.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header with the ids.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header with what tracing systems tell each other; passed on, never read.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Characters of a version 00 `traceparent`.
const LENGTH: usize = 55;
/// Characters of `tracestate` that are passed on (section 3.3.1.5 asks for 512 at least).
const MOST_STATE: usize = 512;
/// The flag that says that the caller records the trace.
const SAMPLED: u8 = 1;

/// Which trace something belongs to, and which span of it asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; not zero.
    pub trace: [u8; 16],
    /// The span that asks; not zero.
    pub span: [u8; 8],
    /// Whether it is recorded.
    pub sampled: bool,
    /// What came in `tracestate`.
    pub state: String,
}

impl TraceContext {
    /// Reads `traceparent`. Nothing for what is not of that form: a wrong one is no reason to refuse a request
    /// (section 3.2.2).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let [version] = unhex(bytes.get(..2)?)?;
        let ends = match (version, bytes.get(LENGTH)) {
            (0xff, _) => false,
            (_, None) => true,
            // Later versions may say more behind another dash.
            (0, Some(_)) => false,
            (_, Some(next)) => *next == b'-',
        };
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        if !ends || !dashes {
            return None;
        }
        let trace = unhex::<16>(bytes.get(3..35)?)?;
        let span = unhex::<8>(bytes.get(36..52)?)?;
        let [flags] = unhex(bytes.get(53..LENGTH)?)?;
        let zero = trace == [0; 16] || span == [0; 8];
        (!zero).then(|| Self { trace, span, sampled: flags & SAMPLED != 0, state: String::new() })
    }

    /// The context that a request brings, if it brings exactly one.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
        let mut context = Self::parse(parent.to_str().ok()?)?;
        let states: Option<Vec<&str>> =
            headers.get_all(TRACESTATE).iter().map(|value| value.to_str().ok()).collect();
        context.state = states.map(|states| states.join(",")).unwrap_or_default();
        if context.state.len() > MOST_STATE {
            context.state.clear();
        }
        Some(context)
    }

    /// Puts it into the headers of a request.
    pub fn write(&self, headers: &mut HeaderMap) {
        if let Ok(parent) = HeaderValue::from_str(&self.to_string()) {
            headers.insert(TRACEPARENT, parent);
        }
        match HeaderValue::from_str(&self.state) {
            Ok(state) if !self.state.is_empty() => drop(headers.insert(TRACESTATE, state)),
            _ => drop(headers.remove(TRACESTATE)),
        }
    }

    /// The trace's id, for people and logs: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        hex(&self.trace)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(formatter, "00-{}-{}-{flags:02x}", hex(&self.trace), hex(&self.span))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lower case alone (section 3.2.2.3).
fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of the specification.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_and_writes_the_example_of_the_specification() {
        let context = TraceContext::parse(EXAMPLE).unwrap();
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.sampled);
        assert_eq!(context.to_string(), EXAMPLE);
        let quiet = TraceContext::parse(&EXAMPLE.replace("-01", "-00")).unwrap();
        assert!(!quiet.sampled);
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        for text in [EXAMPLE.replacen("00", "cc", 1), EXAMPLE.replacen("00", "01", 1) + "-more"] {
            assert_eq!(TraceContext::parse(&text).unwrap().to_string(), EXAMPLE, "{text}");
        }
    }

    #[test]
    fn whatever_else_is_no_context() {
        let zero_trace = EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_span = EXAMPLE.replace("00f067aa0ba902b7", &"0".repeat(16));
        for text in [
            "",
            "00",
            &EXAMPLE[..54],
            &format!("{EXAMPLE}-more"),
            &format!("{EXAMPLE}."),
            &EXAMPLE.replacen("00", "ff", 1),
            &(EXAMPLE.replacen("00", "01", 1) + "x"),
            &EXAMPLE.to_uppercase(),
            &EXAMPLE.replace('-', "_"),
            &EXAMPLE.replace("01", "0g"),
            &zero_trace,
            &zero_span,
            "00-äbf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }

    #[test]
    fn headers_bring_one_context_or_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceContext::from_headers(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(EXAMPLE));
        headers.append(TRACESTATE, HeaderValue::from_static("a=1"));
        headers.append(TRACESTATE, HeaderValue::from_static("b=2"));
        let context = TraceContext::from_headers(&headers).unwrap();
        assert_eq!(context.state, "a=1,b=2");

        let mut on = HeaderMap::new();
        context.write(&mut on);
        assert_eq!(TraceContext::from_headers(&on), Some(context));

        headers.insert(TRACESTATE, HeaderValue::from_str(&"x".repeat(MOST_STATE + 1)).unwrap());
        assert_eq!(TraceContext::from_headers(&headers).unwrap().state, "");
        headers.append(TRACEPARENT, HeaderValue::from_static(EXAMPLE));
        assert_eq!(TraceContext::from_headers(&headers), None);
    }

    proptest! {
        #[test]
        fn any_context_survives_the_wire(
            trace: [u8; 16],
            span: [u8; 8],
            sampled: bool,
        ) {
            prop_assume!(trace != [0; 16] && span != [0; 8]);
            let context = TraceContext { trace, span, sampled, state: String::new() };
            prop_assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _ = TraceContext::parse(&text);
        }
    }
}
