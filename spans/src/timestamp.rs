use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::InvalidSpan;

/// A point in time, in nanoseconds since the Unix epoch.
///
/// Its text form is RFC 3339 in UTC with microseconds, the form that SGP's own clients send:
/// `2026-11-21T08:03:54.911208+00:00`. Reading accepts any RFC 3339 text with an offset.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    unix_ns: i64,
}

impl Timestamp {
    /// The time `unix_ns` nanoseconds after the Unix epoch.
    pub const fn from_unix_ns(unix_ns: i64) -> Self {
        Self { unix_ns }
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn unix_ns(self) -> i64 {
        self.unix_ns
    }

    /// Time that passed since `earlier`, zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.unix_ns.saturating_sub(earlier.unix_ns).try_into().unwrap_or(0))
    }
}

impl From<SystemTime> for Timestamp {
    /// Times outside the years 1677 to 2262 are moved to the nearest one inside.
    fn from(time: SystemTime) -> Self {
        let unix_ns = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
        };
        Self { unix_ns }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(timestamp: Timestamp) -> Self {
        let distance = Duration::from_nanos(timestamp.unix_ns.unsigned_abs());
        if timestamp.unix_ns >= 0 {
            Self::UNIX_EPOCH + distance
        } else {
            Self::UNIX_EPOCH - distance
        }
    }
}

impl FromStr for Timestamp {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || InvalidSpan::new("timestamp", "must be an RFC 3339 time with an offset");
        let parsed: jiff::Timestamp = text.parse().map_err(|_| error())?;
        let unix_ns = i64::try_from(parsed.as_nanosecond()).map_err(|_| error())?;
        Ok(Self { unix_ns })
    }
}

impl Timestamp {
    /// As SGP's clients write it. By hand, since each span says two: a general formatter would take
    /// most of the time that its encoding takes.
    fn text(self) -> Result<[u8; 32], fmt::Error> {
        let time = jiff::Timestamp::from_nanosecond(self.unix_ns.into()).map_err(|_| fmt::Error)?;
        let time = jiff::tz::Offset::UTC.to_datetime(time);
        let mut text = *b"0000-00-00T00:00:00.000000+00:00";
        // Not negative: the years are 1677 to 2262, and parts of a civil time never are.
        let mut put = |at: std::ops::Range<usize>, part: i32| {
            let mut rest = part.unsigned_abs();
            for digit in text[at].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        };
        put(0..4, time.year().into());
        put(5..7, time.month().into());
        put(8..10, time.day().into());
        put(11..13, time.hour().into());
        put(14..16, time.minute().into());
        put(17..19, time.second().into());
        put(20..26, time.subsec_nanosecond() / 1_000);
        Ok(text)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.text()?).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.text().map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|error: InvalidSpan| serde::de::Error::custom(error.reason()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_timestamp_prints_as_sgp_clients_send_it() {
        let text = "2026-11-21T08:03:54.911208+00:00";
        let parsed: Timestamp = text.parse().unwrap();
        assert_eq!(parsed.to_string(), text);
        let whole: Timestamp = "2026-11-21T08:03:54Z".parse().unwrap();
        assert_eq!(whole.to_string(), "2026-11-21T08:03:54.000000+00:00");
        assert_eq!(parsed.since(whole), Duration::from_micros(911_208));
        assert_eq!(whole.since(parsed), Duration::ZERO);
    }

    #[test]
    fn other_offsets_are_read_and_a_missing_one_is_refused() {
        let east: Timestamp = "2026-11-21T10:03:54+02:00".parse().unwrap();
        assert_eq!(east, "2026-11-21T08:03:54+00:00".parse().unwrap());
        assert!("2026-11-21T10:03:54".parse::<Timestamp>().is_err());
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_by_hand_is_what_a_formatter_writes(unix_ns: i64) {
            let time = jiff::Timestamp::from_nanosecond(unix_ns.into()).unwrap();
            let expected = time.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string();
            prop_assert_eq!(Timestamp::from_unix_ns(unix_ns).to_string(), expected);
        }
    }

    #[test]
    fn system_time_round_trips_and_saturates() {
        let time = Timestamp::from_unix_ns(-1_500);
        assert_eq!(Timestamp::from(SystemTime::from(time)), time);
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(20_000_000_000);
        assert_eq!(Timestamp::from(far).unix_ns(), i64::MAX);
        assert_eq!(Timestamp::from_unix_ns(i64::MAX).to_string().len(), 32);
    }
}
