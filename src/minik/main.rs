//! The one binary: CLI on the host, node, component and shim inside the node containers.
//!
//! Owns: the command line and which entry point it leads to.
//! Called by: people, Docker (`minik node`), init (components) and the runtime (`minik shim`).
//! Never: does work of its own.

mod cluster;
mod commands;
mod docker;
mod error;
mod kubeconfig;
mod output;
mod pki;
mod steps;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use commands::{alone, delete, image, kubectl, logs, node, profile, start, status, stop};
use error::CliError;
use output::Format;

/// Local multi-node Kubernetes: each node is a Docker container.
#[derive(Parser, Debug)]
#[command(name = "minik", version, about, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    /// Name of the cluster.
    #[arg(long, short, global = true, env = "MINIK_PROFILE", default_value = "minik", value_parser = cluster::check_profile)]
    profile: String,
    /// How results and errors are printed.
    #[arg(long, short, global = true, value_enum, default_value = "text")]
    output: Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Make a cluster, or bring a stopped one back.
    Start(start::Args),
    /// Stop the cluster and keep everything.
    Stop,
    /// Delete the cluster and leave nothing.
    Delete(delete::Args),
    /// Show what runs and what does not.
    Status,
    /// Clusters of this Docker.
    #[command(subcommand)]
    Profile(profile::Verb),
    /// Nodes of the cluster.
    #[command(subcommand)]
    Node(node::Verb),
    /// Print the log of a node.
    Logs(logs::Args),
    /// Bring images into the cluster.
    #[command(subcommand)]
    Image(image::Verb),
    /// Run the host's kubectl against the cluster.
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run an API server by itself, without Docker.
    #[command(name = "apiserver")]
    ApiServer(alone::ApiServer),
    /// Run a scheduler by itself against any API server.
    Scheduler(alone::Scheduler),
    /// Run the controllers by themselves against any API server.
    ControllerManager(alone::ControllerManager),
    /// Print a completion script.
    Completion { shell: clap_complete::Shell },
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let entry = args.next().and_then(|a| a.into_string().ok()).unwrap_or_default();
    if let Some(code) = minik_node::entry(&entry, &args.collect::<Vec<_>>()) {
        return code;
    }
    let cli = Cli::parse();
    // A component makes its own runtime.
    let alone = match &cli.verb {
        Verb::ApiServer(args) => Some(alone::api_server(args)),
        Verb::Scheduler(args) => Some(alone::scheduler(args)),
        Verb::ControllerManager(args) => Some(alone::controller_manager(args)),
        _ => None,
    };
    if let Some(result) = alone {
        return report(&cli, result);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            output::print_error(cli.output, &CliError::Io { what: "system resources for threads".into(), source });
            return ExitCode::FAILURE;
        }
    };
    report(&cli, runtime.block_on(run(&cli)))
}

fn report(cli: &Cli, result: Result<(), CliError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(cli.output, &error);
            ExitCode::from(error.exit_code() as u8)
        }
    }
}

async fn run(cli: &Cli) -> Result<(), CliError> {
    let profile = cli.profile.as_str();
    match &cli.verb {
        Verb::Start(args) => start::run(profile, args, cli.output).await,
        Verb::Stop => stop::run(profile, cli.output).await,
        Verb::Delete(args) => delete::run(profile, args, cli.output).await,
        Verb::Status => status::run(profile, cli.output).await,
        Verb::Profile(verb) => profile::run(verb, cli.output).await,
        Verb::Node(verb) => node::run(profile, verb, cli.output).await,
        Verb::Logs(args) => logs::run(profile, args).await,
        Verb::Image(verb) => image::run(profile, verb, cli.output).await,
        Verb::Kubectl { args } => kubectl::run(profile, args),
        Verb::ApiServer(_) | Verb::Scheduler(_) | Verb::ControllerManager(_) => {
            unreachable!("components run before there is a runtime")
        }
        Verb::Completion { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "minik", &mut std::io::stdout());
            Ok(())
        }
    }
}
