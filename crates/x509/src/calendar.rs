//! UTCTime and GeneralizedTime as RFC 5280 section 4.1.2.5 has them: whole seconds, `Z`, no fraction.

use chancery_types::Timestamp;

/// Which of the two ASN.1 types a time was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeForm {
    /// `YYMMDDHHMMSSZ`, years 1950 to 2049.
    UtcTime,
    /// `YYYYMMDDHHMMSSZ`.
    GeneralizedTime,
}

impl TimeForm {
    /// The form that RFC 5280 asks for at this moment: UTCTime through 2049.
    #[must_use]
    pub fn required_for(moment: Timestamp) -> Self {
        if moment.seconds() < FIRST_SECOND_OF_2050 { Self::UtcTime } else { Self::GeneralizedTime }
    }
}

/// Writes the digits of a moment, `YYYYMMDDHHMMSSZ`; the caller drops the century for UTCTime.
pub(crate) fn digits(moment: Timestamp) -> [u8; 15] {
    let seconds = moment.seconds().clamp(0, Timestamp::MAX.seconds());
    let (year, month, day) = civil(seconds / 86_400);
    let clock = seconds % 86_400;
    let mut text = [b'Z'; 15];
    two_digits(&mut text[0..2], year / 100);
    two_digits(&mut text[2..4], year % 100);
    two_digits(&mut text[4..6], month);
    two_digits(&mut text[6..8], day);
    two_digits(&mut text[8..10], clock / 3600);
    two_digits(&mut text[10..12], clock / 60 % 60);
    two_digits(&mut text[12..14], clock % 60);
    text
}

/// Reads the content of a UTCTime or GeneralizedTime; `None` unless it is exactly the form of RFC 5280 and
/// lies in 1970 to 9999.
pub(crate) fn read(form: TimeForm, content: &[u8]) -> Option<Timestamp> {
    let (year, rest) = match (form, content.len()) {
        (TimeForm::UtcTime, 13) => {
            let short = number(&content[..2])?;
            (if short < 50 { 2000 + short } else { 1900 + short }, &content[2..])
        }
        (TimeForm::GeneralizedTime, 15) => {
            (number(&content[..2])? * 100 + number(&content[2..4])?, &content[4..])
        }
        _ => return None,
    };
    let (month, day) = (number(&rest[..2])?, number(&rest[2..4])?);
    let (hour, minute, second) = (number(&rest[4..6])?, number(&rest[6..8])?, number(&rest[8..10])?);
    if rest[10] != b'Z' || year < 1970 || hour > 23 || minute > 59 || second > 59 || month == 0 {
        return None;
    }
    let days = days_before(year, month, day);
    // The round trip refuses 31 February and the like.
    (civil(days) == (year, month, day))
        .then(|| Timestamp::from_seconds(days * 86_400 + hour * 3600 + minute * 60 + second))
}

fn two_digits(place: &mut [u8], value: i64) {
    let value = u8::try_from(value.clamp(0, 99)).expect("clamped to two digits");
    place[0] = b'0' + value / 10;
    place[1] = b'0' + value % 10;
}

fn number(two: &[u8]) -> Option<i64> {
    two.iter().all(u8::is_ascii_digit).then(|| i64::from(two[0] - b'0') * 10 + i64::from(two[1] - b'0'))
}

/// Year, month and day of a day counted from 1970-01-01, by the proleptic Gregorian calendar in cycles of 400
/// years whose years begin in March (H. Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// 2050-01-01T00:00:00Z
const FIRST_SECOND_OF_2050: i64 = 2_524_608_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_rfc_3339(seconds in 0_i64..=253_402_300_799) {
            let moment = Timestamp::from_seconds(seconds);
            let written = digits(moment);
            let expected: String = moment.to_string().chars().filter(|c| c.is_ascii_digit() || *c == 'Z').collect();
            prop_assert_eq!(std::str::from_utf8(&written).unwrap(), expected);
            prop_assert_eq!(read(TimeForm::GeneralizedTime, &written), Some(moment));
            if TimeForm::required_for(moment) == TimeForm::UtcTime {
                prop_assert_eq!(read(TimeForm::UtcTime, &written[2..]), Some(moment));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(content in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = read(TimeForm::UtcTime, &content);
            let _ = read(TimeForm::GeneralizedTime, &content);
        }
    }

    #[test]
    fn the_form_changes_at_2050() {
        let last: Timestamp = "2049-12-31T23:59:59Z".parse().unwrap();
        assert_eq!(TimeForm::required_for(last), TimeForm::UtcTime);
        let first: Timestamp = "2050-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(TimeForm::required_for(first), TimeForm::GeneralizedTime);
    }

    #[test]
    fn refuses_days_and_forms_that_do_not_exist() {
        for text in [
            "260230120000Z",
            "261301000000Z",
            "260001000000Z",
            "260101240000Z",
            "260101006000Z",
            "260101000060Z",
            "2601010000Z",
            "260101000000+0000",
            "260101000000z",
            "26010100000 Z",
            "691231235959Z",
        ] {
            assert_eq!(read(TimeForm::UtcTime, text.as_bytes()), None, "{text}");
        }
        assert_eq!(read(TimeForm::GeneralizedTime, b"20260101000000.5Z"), None);
        assert!(read(TimeForm::GeneralizedTime, b"20240229000000Z").is_some());
        assert!(read(TimeForm::GeneralizedTime, b"20230229000000Z").is_none());
    }
}
