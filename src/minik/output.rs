//! What a person or a script sees: progress on stderr, data on stdout, errors as what, why and how to mend.
//!
//! Owns: the look of the CLI, and whether it is a terminal, plain lines or JSON.
//! Called by: `main` and every command.
//! Never: writes data to stderr or progress to stdout.

use std::error::Error;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::CliError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// Prints the steps of a longer command. One line a step, with its time when it is done.
pub struct Progress {
    look: Look,
    begun: Instant,
}

enum Look {
    Terminal(ProgressBar),
    Plain,
    Silent,
}

impl Progress {
    pub fn new(format: Format) -> Self {
        let look = match format {
            Format::Json => Look::Silent,
            Format::Text if std::io::stderr().is_terminal() => {
                let bar = ProgressBar::new_spinner();
                let style = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}");
                bar.set_style(style.expect("the template is a constant"));
                bar.enable_steady_tick(Duration::from_millis(80));
                Look::Terminal(bar)
            }
            Format::Text => Look::Plain,
        };
        Self { look, begun: Instant::now() }
    }

    /// What is being done now.
    pub fn step(&self, what: &str) {
        match &self.look {
            Look::Terminal(bar) => bar.set_message(what.to_string()),
            Look::Plain => eprintln!("{what} ..."),
            Look::Silent => {}
        }
    }

    /// A line that stays.
    pub fn note(&self, what: &str) {
        match &self.look {
            Look::Terminal(bar) => bar.println(format!("{} {what}", console::style("✓").green())),
            Look::Plain => eprintln!("{what}"),
            Look::Silent => {}
        }
    }

    pub fn done(&self, what: &str) {
        let took = format!("{what} in {:.1} s", self.begun.elapsed().as_secs_f64());
        match &self.look {
            Look::Terminal(bar) => {
                bar.finish_and_clear();
                eprintln!("{} {took}", console::style("✓").green());
            }
            Look::Plain => eprintln!("{took}"),
            Look::Silent => {}
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Look::Terminal(bar) = &self.look {
            bar.finish_and_clear();
        }
    }
}

/// `error:`, the chain of causes, and the hint.
pub fn print_error(format: Format, error: &CliError) {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes.dedup();
    if format == Format::Json {
        let body = serde_json::json!({"error": error.to_string(), "causes": causes, "hint": error.hint(),
            "exitCode": error.exit_code() as u8});
        println!("{body}");
        return;
    }
    eprintln!("{} {error}", console::style("error:").red().bold().for_stderr());
    for cause in causes {
        eprintln!("  caused by: {cause}");
    }
    if let Some(hint) = error.hint() {
        eprintln!("{} {hint}", console::style("hint:").cyan().for_stderr());
    }
}

/// Columns aligned by two spaces, as kubectl does.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}", w = *w)).collect();
        padded.join("   ").trim_end().to_string() + "\n"
    };
    let mut text = line(header.to_vec());
    for row in rows {
        text += &line(row.iter().map(String::as_str).collect());
    }
    text
}
