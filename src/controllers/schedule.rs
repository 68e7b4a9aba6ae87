//! Cron schedules: `*/5 8-17 * * MON-FRI`, `@hourly`, `@every 1h30m`.
//!
//! Owns: reading a schedule and finding the next time it names.
//! Called by: `cronjob`.
//! Never: reads the clock.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

/// A schedule that names no day in so many years (31 February) names none at all; robfig/cron's number.
const YEARS_MAX: i16 = 5;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Schedule {
    Every(SignedDuration),
    Fields { minutes: u64, hours: u64, days: u64, months: u64, weekdays: u64, any_day: bool, any_weekday: bool },
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    pub(crate) fn parse(text: &str) -> Result<Schedule, String> {
        let text = text.trim();
        if let Some(every) = text.strip_prefix("@every ") {
            let span: Span = every.parse().map_err(|_| format!("failed to parse duration {text}"))?;
            let length = SignedDuration::try_from(span).map_err(|_| format!("failed to parse duration {text}"))?;
            return Ok(Schedule::Every(length.max(SignedDuration::from_secs(1))));
        }
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ if text.starts_with('@') => return Err(format!("unrecognized descriptor: {text}")),
            _ => text,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: {fields:?}", fields.len()));
        };
        let any = |field: &str| field.split(',').any(|part| part == "*" || part == "?" || part.starts_with("*/"));
        let mut weekday_bits = bits(weekdays, 0, 7, &WEEKDAYS)?;
        // Sunday is 0 and 7.
        weekday_bits |= weekday_bits >> 7 & 1;
        Ok(Schedule::Fields {
            minutes: bits(minutes, 0, 59, &[])?,
            hours: bits(hours, 0, 23, &[])?,
            days: bits(days, 1, 31, &[])?,
            months: bits(months, 1, 12, &MONTHS)?,
            weekdays: weekday_bits,
            any_day: any(days),
            any_weekday: any(weekdays),
        })
    }

    /// The first time after `from`.
    pub(crate) fn next(&self, from: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let (minutes, hours, months) = match self {
            Schedule::Every(length) => {
                let whole = Timestamp::from_second(from.as_second()).ok()?;
                return whole.checked_add(*length).ok();
            }
            Schedule::Fields { minutes, hours, months, .. } => (*minutes, *hours, *months),
        };
        let start = from.to_zoned(zone.clone()).datetime();
        let mut at =
            start.with().second(0).subsec_nanosecond(0).build().ok()?.checked_add(Span::new().minutes(1)).ok()?;
        let last_year = start.year() + YEARS_MAX;
        while at.year() <= last_year {
            if !has(months, at.month()) {
                at = midnight(at.with().day(1).build().ok()?)?.checked_add(Span::new().months(1)).ok()?;
            } else if !self.has_day(at) {
                at = midnight(at)?.checked_add(Span::new().days(1)).ok()?;
            } else if !has(hours, at.hour()) {
                at = at.with().minute(0).build().ok()?.checked_add(Span::new().hours(1)).ok()?;
            } else if !has(minutes, at.minute()) {
                at = at.checked_add(Span::new().minutes(1)).ok()?;
            } else {
                let found = at.to_zoned(zone.clone()).ok()?.timestamp();
                // A local time that a change of clocks skips or repeats may lie before `from`.
                if found > from {
                    return Some(found);
                }
                at = at.checked_add(Span::new().minutes(1)).ok()?;
            }
        }
        None
    }

    /// With both days restricted either will do; with one, that one; as cron has always had it.
    fn has_day(&self, at: DateTime) -> bool {
        let Schedule::Fields { days, weekdays, any_day, any_weekday, .. } = self else { return true };
        let day = has(*days, at.day());
        let weekday = has(*weekdays, at.weekday().to_sunday_zero_offset());
        if *any_day || *any_weekday { day && weekday } else { day || weekday }
    }
}

fn midnight(at: DateTime) -> Option<DateTime> {
    at.with().hour(0).minute(0).build().ok()
}

fn has(bits: u64, n: i8) -> bool {
    bits >> n & 1 == 1
}

fn bits(field: &str, min: u32, max: u32, names: &[&str]) -> Result<u64, String> {
    let mut set = 0;
    for part in field.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let step: u32 = step.map_or(Ok(1), |s| s.parse().map_err(|_| format!("failed to parse int from {s}")))?;
        if step == 0 {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        let number = |text: &str| -> Result<u32, String> {
            let named = names.iter().position(|n| n.eq_ignore_ascii_case(text));
            let offset = if names.len() == 12 { 1 } else { 0 };
            match named {
                Some(at) => Ok(at as u32 + offset),
                None => text.parse().map_err(|_| format!("failed to parse int from {text}")),
            }
        };
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (number(from)?, number(to)?),
            // Seven is a second name of Sunday, not an eighth day.
            None if range == "*" || range == "?" => (min, if max == 7 { 6 } else { max }),
            None if part.contains('/') => (number(range)?, max),
            None => (number(range)?, number(range)?),
        };
        if from < min {
            return Err(format!("beginning of range ({from}) below minimum ({min}): {part}"));
        }
        if to > max {
            return Err(format!("end of range ({to}) above maximum ({max}): {part}"));
        }
        if from > to {
            return Err(format!("beginning of range ({from}) beyond end of range ({to}): {part}"));
        }
        for n in (from..=to).step_by(step as usize) {
            set |= 1 << n;
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, from: &str) -> String {
        let schedule = Schedule::parse(schedule).unwrap();
        let next = schedule.next(from.parse().unwrap(), &TimeZone::UTC);
        next.map_or("never".into(), |at| at.to_string())
    }

    #[test]
    fn the_next_time_is_found_across_hours_days_and_months() {
        assert_eq!(next("*/5 * * * *", "2026-01-01T00:01:30Z"), "2026-01-01T00:05:00Z");
        assert_eq!(next("0 8-17/4 * * *", "2026-01-01T13:00:00Z"), "2026-01-01T16:00:00Z");
        assert_eq!(next("30 6 * * MON-FRI", "2026-01-02T07:00:00Z"), "2026-01-05T06:30:00Z");
        assert_eq!(next("0 0 1 feb *", "2026-03-01T00:00:00Z"), "2027-02-01T00:00:00Z");
        assert_eq!(next("@hourly", "2026-12-31T23:59:59Z"), "2027-01-01T00:00:00Z");
        assert_eq!(next("@every 1h30m", "2026-01-01T00:00:00Z"), "2026-01-01T01:30:00Z");
        assert_eq!(next("* * 31 2 *", "2026-01-01T00:00:00Z"), "never");
    }

    #[test]
    fn day_and_weekday_are_either_or_when_both_are_given() {
        assert_eq!(next("0 0 13 * 5", "2026-01-01T12:00:00Z"), "2026-01-02T00:00:00Z");
        assert_eq!(next("0 0 * * 7", "2026-01-01T12:00:00Z"), "2026-01-04T00:00:00Z");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("* * * *", "expected exactly 5 fields, found 4"),
            ("60 * * * *", "end of range (60) above maximum (59)"),
            ("@sometimes", "unrecognized descriptor"),
            ("x * * * *", "failed to parse int from x"),
        ] {
            assert!(Schedule::parse(text).unwrap_err().contains(why), "{text}");
        }
    }
}
