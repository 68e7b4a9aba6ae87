//! Quantities such as `250m`, `1.5Gi`, `1e3`: what they are worth and how Kubernetes spells them.
//!
//! Owns: parsing, the canonical spelling, comparison and arithmetic.
//! Called by: defaulting (spelling), validation, the scheduler, quota and kubelet (arithmetic).
//! Never: knows what is measured.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

/// How the number was written, and so how a sum with it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    DecimalSi,
}

/// A fixed-point number counted in billionths, the finest unit Kubernetes knows.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i128 = 1_000_000_000;
const MILLI: i128 = 1_000_000;
/// Binary quantities are capped at what an int64 holds.
const BINARY_MAX: i128 = i64::MAX as i128 * NANO;
const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// From 10^-9 to 10^18 in steps of 1,000.
const DECIMAL_SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

/// The pieces of a quantity's text.
struct Pieces<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

fn split(text: &str) -> Result<Pieces<'_>, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let negative = text.starts_with('-');
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text).trim_start_matches('0');
    let (whole, rest) = split_digits(rest);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    if !exponent.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    Ok(Pieces { negative, whole, fraction, suffix })
}

/// Base, exponent and format that a suffix stands for.
fn interpret(suffix: &str) -> Option<(u32, i32, Format)> {
    if let Some(i) = DECIMAL_SUFFIXES.iter().position(|s| *s == suffix) {
        return Some((10, i as i32 * 3 - 9, Format::DecimalSi));
    }
    if let Some(i) = BINARY_SUFFIXES.iter().position(|s| *s == suffix) {
        return Some((2, i as i32 * 10, Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    Some((10, exponent.parse().ok()?, Format::DecimalExponent))
}

fn pow10(exponent: u32) -> i128 {
    10i128.checked_pow(exponent).unwrap_or(i128::MAX)
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nano: 0, format: Format::DecimalSi };

    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let pieces = split(text)?;
        let (base, exponent, mut format) = interpret(pieces.suffix).ok_or(QuantityError::Suffix)?;
        let mut nano = magnitude(&pieces, base, exponent)?;
        if format == Format::BinarySi {
            nano = nano.min(BINARY_MAX);
            // A binary fraction below one would be rounded to nothing: it is shown in decimal instead.
            if nano > 0 && nano < NANO && (exponent < 0 || !pieces.fraction.is_empty()) {
                format = Format::DecimalSi;
            }
        }
        Ok(Self { nano: if pieces.negative { -nano } else { nano }, format })
    }

    /// From a JSON string or number.
    pub fn from_json(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            Value::Null => Ok(Self::ZERO),
            _ => Err(QuantityError::Format),
        }
    }

    pub fn from_value(value: i64, format: Format) -> Self {
        Self { nano: value as i128 * NANO, format }
    }
    pub fn from_milli(milli: i64, format: Format) -> Self {
        Self { nano: milli as i128 * MILLI, format }
    }

    /// Whole units, rounded away from zero.
    pub fn value(&self) -> i64 {
        self.in_units(NANO)
    }
    /// Thousandths, rounded away from zero: what CPU is counted in.
    pub fn milli_value(&self) -> i64 {
        self.in_units(MILLI)
    }
    fn in_units(&self, unit: i128) -> i64 {
        let rounded = self.nano / unit + if self.nano % unit == 0 { 0 } else { self.nano.signum() };
        rounded.clamp(i64::MIN as i128, i64::MAX as i128) as i64
    }
    pub fn as_f64(&self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }
    pub fn signum(&self) -> i32 {
        self.nano.signum() as i32
    }
    pub fn format(&self) -> Format {
        self.format
    }
    /// Whether nothing is lost when it is counted in whole units.
    pub fn is_whole(&self) -> bool {
        self.nano % NANO == 0
    }

    /// Rounded up to thousandths, as defaulting does to every resource list.
    pub fn round_up_to_milli(self) -> Self {
        let rest = self.nano % MILLI;
        if rest == 0 {
            return self;
        }
        let up = self.nano - rest + if self.nano > 0 { MILLI } else { -MILLI };
        Self { nano: up, ..self }
    }

    pub fn times(self, factor: i64) -> Self {
        Self { nano: self.nano.saturating_mul(factor as i128), ..self }
    }

    /// The sum; written in the format of the first operand that is not zero.
    #[expect(clippy::should_implement_trait, reason = "the operators are implemented below in terms of these")]
    pub fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nano: self.nano.saturating_add(other.nano), format }
    }
    #[expect(clippy::should_implement_trait, reason = "the operators are implemented below in terms of these")]
    pub fn sub(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nano: self.nano.saturating_sub(other.nano), format }
    }
}

/// The absolute value in billionths; what is finer is rounded up, so that who asks for little gets something.
fn magnitude(pieces: &Pieces<'_>, base: u32, exponent: i32) -> Result<i128, QuantityError> {
    let digits = format!("{}{}", pieces.whole, pieces.fraction);
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(0);
    }
    // Beyond 38 digits an i128 cannot follow; Kubernetes itself caps far below what such a number would mean.
    let mantissa: i128 = if digits.len() > 38 { i128::MAX } else { digits.parse().unwrap_or(i128::MAX) };
    let mantissa = if base == 2 { mantissa.saturating_mul(1i128 << exponent) } else { mantissa };
    let decimal = if base == 10 { exponent } else { 0 };
    let shift = 9i64 + decimal as i64 - pieces.fraction.len() as i64;
    if shift >= 0 {
        return Ok(mantissa.saturating_mul(pow10(shift.min(40) as u32)));
    }
    let divisor = pow10(shift.unsigned_abs().min(40) as u32);
    Ok(mantissa / divisor + i128::from(mantissa % divisor != 0))
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}
impl std::ops::Add for Quantity {
    type Output = Quantity;
    fn add(self, other: Self) -> Self {
        Quantity::add(self, other)
    }
}
impl std::ops::Sub for Quantity {
    type Output = Quantity;
    fn sub(self, other: Self) -> Self {
        Quantity::sub(self, other)
    }
}

/// The canonical spelling: the largest suffix that needs no fraction.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let small = self.nano.abs() < 1024 * NANO;
        if self.format == Format::BinarySi && !small && self.is_whole() {
            let mut number = self.nano / NANO;
            let mut power = 0;
            while number % 1024 == 0 && power + 1 < BINARY_SUFFIXES.len() {
                number /= 1024;
                power += 1;
            }
            return write!(f, "{number}{}", BINARY_SUFFIXES[power]);
        }
        let mut number = self.nano;
        let mut exponent = -9;
        while number % 1000 == 0 && (exponent < 18 || self.format == Format::DecimalExponent) {
            number /= 1000;
            exponent += 3;
        }
        match self.format {
            Format::DecimalExponent if exponent == 0 => write!(f, "{number}"),
            Format::DecimalExponent => write!(f, "{number}e{exponent}"),
            _ => write!(f, "{number}{}", DECIMAL_SUFFIXES[((exponent + 9) / 3) as usize]),
        }
    }
}

/// How the server writes back a quantity that a client sent: the client's own spelling where it is near enough to
/// the canonical one (`1500Mi`, `0`, `1.500`), else the canonical one.
pub fn respell(text: &str) -> Result<String, QuantityError> {
    let quantity = Quantity::parse(text)?;
    if text == "0" || keeps_spelling(text) { Ok(text.to_string()) } else { Ok(quantity.to_string()) }
}

fn keeps_spelling(text: &str) -> bool {
    let Ok(pieces) = split(text) else { return false };
    let Some((base, exponent, _)) = interpret(pieces.suffix) else { return false };
    let whole = if pieces.whole.is_empty() { "0" } else { pieces.whole };
    let digits = format!("{whole}{}", pieces.fraction);
    // More than 18 digits (15 with a binary suffix) go the slow way upstream, which always respells.
    if base == 2 {
        let room = 15 - whole.len() as i32 - exponent * 3 / 10 - 1;
        let Ok(number) = digits.parse::<i64>() else { return false };
        return pieces.fraction.is_empty() && room >= 0 && number & 7 != 0;
    }
    let scale = exponent - pieces.fraction.len() as i32;
    digits.len() <= 18 && scale >= -9 && scale % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).map_or_else(|e| format!("error: {e}"), |q| q.to_string())
    }

    #[test]
    fn the_canonical_form_has_the_largest_suffix_without_a_fraction() {
        let cases = [
            ("0", "0"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1024", "1024"),
            ("1500Mi", "1500Mi"),
            ("0.5Mi", "512Ki"),
            ("100Ki", "100Ki"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("1E", "1E"),
            ("1E3", "1e3"),
            ("-1.5", "-1500m"),
            ("+5", "5"),
            ("005", "5"),
            ("1.", "1"),
            (".5", "500m"),
            ("0.0000000001", "1n"),
            ("100n", "100n"),
            ("1000000", "1M"),
            ("123456789", "123456789"),
            ("9Ei", "9223372036854775807"),
            ("0.25Ki", "256"),
            ("0.0001Ki", "102400u"),
            ("512Ki", "512Ki"),
        ];
        for (text, expected) in cases {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_kubernetes_words() {
        for text in ["", "1 Gi", "5x", "1.2.3", "1KI"] {
            assert_eq!(Quantity::parse(text).unwrap_err(), QuantityError::Format, "{text}");
        }
        for text in ["1mm", "1i", "1K", "1e"] {
            assert_eq!(Quantity::parse(text).unwrap_err(), QuantityError::Suffix, "{text}");
        }
    }

    #[test]
    fn values_are_compared_and_added_across_formats() {
        let q = |t| Quantity::parse(t).unwrap();
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("1000m"), q("1"));
        assert_eq!((q("100m") + q("1")).to_string(), "1100m");
        assert_eq!((q("0") + q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("2Gi") - q("512Mi")).to_string(), "1536Mi");
        assert_eq!(q("100m").value(), 1);
        assert_eq!(q("1500u").milli_value(), 2);
        assert_eq!(q("1500u").round_up_to_milli().to_string(), "2m");
    }

    #[test]
    fn a_clients_spelling_survives_when_it_is_nearly_canonical() {
        let cases = [
            ("1.500", "1.500"),
            ("0.5", "500m"),
            ("1500Mi", "1500Mi"),
            ("1024Mi", "1Gi"),
            ("1000m", "1"),
            ("100m", "100m"),
            ("0Gi", "0"),
            ("8Gi", "8Gi"),
            ("2048Ki", "2Mi"),
            ("1e3", "1e3"),
        ];
        for (text, expected) in cases {
            assert_eq!(respell(text).unwrap(), expected, "{text}");
        }
    }
}
