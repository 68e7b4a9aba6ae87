//! Parts of timestamps and durations.
//!
//! Owns: `getFullYear()` and its like, in UTC or the named time zone.
//! Called by: the evaluation.
//! Never: reads the clock.

use jiff::Zoned;
use jiff::tz::{Offset, TimeZone};

use super::{Outcome, Run, text};
use crate::failure::Failure;
use crate::value::Value;

pub fn find(name: &str) -> Option<Run> {
    Some(match name {
        "getFullYear" => |args| of_moment(&args, |t| i64::from(t.year())),
        "getMonth" => |args| of_moment(&args, |t| i64::from(t.month()) - 1),
        "getDayOfYear" => |args| of_moment(&args, |t| i64::from(t.day_of_year()) - 1),
        "getDayOfMonth" => |args| of_moment(&args, |t| i64::from(t.day()) - 1),
        "getDate" => |args| of_moment(&args, |t| i64::from(t.day())),
        "getDayOfWeek" => |args| of_moment(&args, |t| i64::from(t.weekday().to_sunday_zero_offset())),
        "getHours" => |args| of_either(&args, |t| i64::from(t.hour()), |d| d / 3_600_000_000_000),
        "getMinutes" => |args| of_either(&args, |t| i64::from(t.minute()), |d| d / 60_000_000_000),
        "getSeconds" => |args| of_either(&args, |t| i64::from(t.second()), |d| d / 1_000_000_000),
        "getMilliseconds" => |args| of_either(&args, |t| i64::from(t.millisecond()), |d| d / 1_000_000 % 1_000),
        _ => return None,
    })
}

fn of_either<'a>(args: &[Value<'a>], part: fn(&Zoned) -> i64, of_duration: fn(i64) -> i64) -> Outcome<'a> {
    match &args[0] {
        Value::Duration(nanos) => Ok(Value::Int(of_duration(*nanos))),
        _ => of_moment(args, part),
    }
}

fn of_moment<'a>(args: &[Value<'a>], part: fn(&Zoned) -> i64) -> Outcome<'a> {
    let Value::Timestamp(moment) = &args[0] else { return Err(Failure::no_such_overload()) };
    let zone = if args.len() > 1 { zone(text::text(args, 1)?)? } else { TimeZone::UTC };
    Ok(Value::Int(part(&moment.to_zoned(zone))))
}

/// `Europe/Paris`, `+02:30`, `-08:00`.
fn zone(name: &str) -> Result<TimeZone, Failure> {
    let unknown = || Failure::new(format!("unknown time zone {name}"));
    let Some((hours, minutes)) = name.split_once(':') else {
        return TimeZone::get(name).map_err(|_| unknown());
    };
    let hours_number: i32 = hours.parse().map_err(|_| unknown())?;
    let minutes: i32 = minutes.parse().map_err(|_| unknown())?;
    let sign = if hours.starts_with('-') { -1 } else { 1 };
    let seconds = hours_number * 3600 + sign * minutes * 60;
    Offset::from_seconds(seconds).map(TimeZone::fixed).map_err(|_| unknown())
}
