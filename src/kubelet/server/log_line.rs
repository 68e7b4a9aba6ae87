//! Lines of container logs: CRI's format, or a component's plain text.
//!
//! Owns: parsing a line and what of it a reader gets.
//! Called by: the log reader.
//! Never: touches a file.

use jiff::Timestamp;

/// How the lines of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `<RFC 3339> <stdout|stderr> <P|F> <text>`
    Cri,
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    All,
    Stdout,
    Stderr,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub format: Format,
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    pub streams: Streams,
}

/// What a reader gets of one line, which comes without its line end.
pub fn render(line: &[u8], options: &Options, out: &mut Vec<u8>) {
    if options.format == Format::Plain {
        out.extend_from_slice(line);
        out.push(b'\n');
        return;
    }
    let mut parts = line.splitn(4, |b| *b == b' ');
    let (Some(time), Some(stream), Some(tag)) = (parts.next(), parts.next(), parts.next()) else { return };
    let text = parts.next().unwrap_or_default();
    let wanted = match options.streams {
        Streams::All => true,
        Streams::Stdout => stream == b"stdout",
        Streams::Stderr => stream == b"stderr",
    };
    if !wanted {
        return;
    }
    if let Some(since) = options.since {
        let written = std::str::from_utf8(time).ok().and_then(|t| t.parse::<Timestamp>().ok());
        if written.is_none_or(|t| t < since) {
            return;
        }
    }
    if options.timestamps {
        out.extend_from_slice(time);
        out.push(b' ');
    }
    out.extend_from_slice(text);
    // A partial line goes on in the next; tags may hold more, separated by colons.
    if tag.split(|b| *b == b':').next() != Some(b"P") {
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(options: Options, expected: &str) {
        let log = "2026-01-01T00:00:00.5Z stdout F one\n2026-01-01T00:00:01Z stderr P tw\n2026-01-01T00:00:01Z stderr F o\nbroken\n2026-01-01T00:00:02Z stdout F \n";
        let mut out = Vec::new();
        for line in log.lines() {
            render(line.as_bytes(), &options, &mut out);
        }
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    fn options() -> Options {
        Options { format: Format::Cri, since: None, timestamps: false, streams: Streams::All }
    }

    #[test]
    fn text_comes_without_its_frame_and_partial_lines_are_joined() {
        check(options(), "one\ntwo\n\n");
    }

    #[test]
    fn timestamps_streams_and_since_select() {
        check(
            Options { timestamps: true, streams: Streams::Stdout, ..options() },
            "2026-01-01T00:00:00.5Z one\n2026-01-01T00:00:02Z \n",
        );
        check(Options { since: Some("2026-01-01T00:00:02Z".parse().expect("a time")), ..options() }, "\n");
        let all = "2026-01-01T00:00:00.5Z stdout F one\n2026-01-01T00:00:01Z stderr P tw\n2026-01-01T00:00:01Z stderr F o\nbroken\n2026-01-01T00:00:02Z stdout F \n";
        check(Options { format: Format::Plain, ..options() }, all);
    }
}
