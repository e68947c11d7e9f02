//! The command line as a whole: the options every command takes, and the table of commands.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{client, client::Client, commands, exit::Failure, ui::Ui};

/// Self-hosted serverless platform for ComfyUI.
#[derive(Debug, Parser)]
#[command(
    name = "darkroom",
    version,
    about,
    propagate_version = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Address of the server [default: http://127.0.0.1:8288]
    #[arg(
        long,
        global = true,
        env = "DARKROOM_SERVER",
        value_name = "URL",
        hide_env_values = true
    )]
    pub server: Option<String>,
    /// Key to show it
    #[arg(
        long,
        global = true,
        env = "DARKROOM_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    pub key: Option<String>,
    /// Print JSON only
    #[arg(long, global = true)]
    pub json: bool,
    /// How much to log
    #[arg(long, global = true, env = "DARKROOM_LOG", value_name = "FILTER", hide = true)]
    pub log: Option<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// The same in the configuration's words.
    pub fn configured(self) -> darkroom_server::config::LogFormat {
        match self {
            LogFormat::Text => darkroom_server::config::LogFormat::Text,
            LogFormat::Json => darkroom_server::config::LogFormat::Json,
        }
    }
}

impl Global {
    /// How to print.
    pub fn ui(&self) -> Ui {
        Ui { json: self.json }
    }

    /// The server's address.
    pub fn server(&self) -> &str {
        self.server.as_deref().unwrap_or(client::DEFAULT_SERVER)
    }

    /// A client of the server.
    pub fn client(&self) -> Result<Client, Failure> {
        Client::new(self.server(), self.key.clone())
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a server
    Serve(commands::serve::ServeArgs),
    /// Start a server for a look around, run a sample workflow, and show what happened
    Demo(commands::demo::DemoArgs),
    /// Run a workflow and save what it makes
    Run(commands::run::RunArgs),
    /// List, show, cancel, retry, or delete jobs
    #[command(subcommand)]
    Jobs(commands::jobs::JobsCommand),
    /// List running instances
    Instances(commands::instances::InstancesArgs),
    /// List endpoints, or show one with its latest scaling decisions
    Endpoints(commands::endpoints::EndpointsArgs),
    /// List queues of the EAS queue service, or show one with its consumers
    Queues(commands::queues::QueuesArgs),
    /// Put a ComfyUI that is there behind an endpoint: a URL or an installation
    Attach(commands::attach::AttachArgs),
    /// Take away what was attached
    Detach(commands::attach::DetachArgs),
    /// Print the log of an instance, or of the instance a job ran on
    Logs(commands::logs::LogsArgs),
    /// Open an endpoint's ComfyUI page in the browser
    Open(commands::open::OpenArgs),
    /// Publish a workflow: applications call it by name with a few inputs
    Publish(commands::publish::PublishArgs),
    /// List, show, compare, move, export, or import published workflows
    #[command(subcommand)]
    Workflows(commands::workflows::WorkflowsCommand),
    /// Show what files take, by tenant, endpoint and age
    Storage(commands::storage::StorageArgs),
    /// Create, list, or revoke keys
    #[command(subcommand)]
    Keys(commands::keys::KeysCommand),
    /// Check this machine, the configuration, and the server; or what a workflow would miss on each box
    Doctor(commands::doctor::DoctorArgs),
    /// Check a configuration file, or print an example
    #[command(subcommand)]
    Config(commands::config::ConfigCommand),
    /// Measure this machine: overhead, submits, memory, cold start, each beside its ceiling
    Bench(commands::bench::BenchArgs),
    /// Make a ComfyUI on this machine an instance of a server elsewhere
    Agent(commands::agent::AgentArgs),
    /// Run only the native ComfyUI-compatible engine (what an endpoint without a ComfyUI runs)
    Engine(commands::engine::EngineArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn every_command_can_be_parsed_at_all() {
        Cli::command().debug_assert();
    }
}
