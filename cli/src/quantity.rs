//! Durations and sizes as people write them on a command line.

use std::time::Duration;

/// Reads a duration such as `90m` or `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)];
    let seconds = parse(text, &units).ok_or("must be a number with s, m, h, d or w, such as 7d")?;
    Ok(Duration::from_secs(seconds))
}

/// Reads a number of bytes such as `500MB` or `2GB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let units = [("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("B", 1)];
    let bytes = parse(text, &units).ok_or("must be a number with B, kB, MB or GB, such as 2GB")?;
    Ok(bytes)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    number.trim_end().parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_with_their_units() {
        assert_eq!(duration("90m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(bytes("2GB"), Ok(2_000_000_000));
        assert_eq!(bytes("500 MB"), Ok(500_000_000));
        assert_eq!(bytes("12B"), Ok(12));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in ["", "7", "d", "-1d", "1.5h", "7 days", "99999999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["", "7", "GB", "1TB", "18446744073709551615GB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
