//! A flag for every setting, made from the same table as all the rest.

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::{Form, SETTINGS};

/// The settings given as flags, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Flags(pub(super) Vec<(&'static str, Vec<String>)>);

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        SETTINGS.iter().fold(command, |command, setting| {
            let mut help = format!("{}\nTakes {}", setting.help.trim(), setting.allowed);
            if let Some(default) = setting.default {
                help = format!("{help} [default: {default}]");
            }
            let mut argument = Arg::new(setting.name)
                .long(setting.flag())
                .help(help)
                .help_heading("Settings")
                .hide_short_help(true)
                .global(true)
                .value_name("VALUE")
                .action(ArgAction::Set);
            if matches!(setting.form, Form::List | Form::Secrets) {
                argument = argument.action(ArgAction::Append).value_delimiter(',');
            }
            command.arg(argument)
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS {
            let values = matches
                .try_get_many::<String>(setting.name)
                .map_err(|error| clap::Error::raw(ErrorKind::InvalidValue, error))?;
            if let Some(values) = values {
                self.0.push((setting.name, values.cloned().collect()));
            }
        }
        Ok(())
    }
}
