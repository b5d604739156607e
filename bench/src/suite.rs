//! The suite: every selected experiment, as many times as asked, then the table, the page and the files.
//!
//! Always: an experiment that goes wrong or cannot be done is not tried again, and does not keep the others from
//! running.

use crate::Ending;
use crate::arguments::Arguments;
use crate::experiments::{ALL, Bench, Experiment, HOSTS, NotMeasured};
use crate::progress::Progress;
use crate::record::Record;
use crate::targets::{Judged, Verdict, judge_all};
use crate::{machine, quickfire, report};

/// The experiments by name.
pub fn list() -> String {
    ALL.iter().map(|experiment| format!("{:<20} {}\n", experiment.name, experiment.what)).collect()
}

/// Measures, prints and keeps.
pub fn run(arguments: &Arguments) -> Result<Ending, String> {
    let selected: Vec<&Experiment> = if arguments.hosts {
        vec![&HOSTS]
    } else {
        ALL.iter().filter(|experiment| arguments.is_selected(experiment.name)).collect()
    };
    if selected.is_empty() {
        return Err(format!(
            "no experiment is named like {}; these are:\n{}",
            arguments.only.join(", "),
            list()
        ));
    }
    quickfire::build().map_err(|error| error.to_string())?;
    let record = measure(arguments, &selected);
    let judged = judge_all(&record, |name| selected.iter().any(|experiment| experiment.name == name));
    print!("{}", report::text::render(&record, &judged));
    let name = if arguments.hosts { "hosts" } else { "targets" };
    keep(arguments, name, &record, &report::html::render(&record, &judged))
        .map_err(|error| error.to_string())?;
    Ok(ending_of(&record, &judged))
}

fn measure(arguments: &Arguments, selected: &[&Experiment]) -> Record {
    let plan = arguments.plan();
    let mut record = Record::new(plan.seconds, plan.window);
    let once_s: f64 = selected.iter().map(|experiment| (experiment.seconds)(&plan)).sum();
    let progress = Progress::new(once_s * plan.runs as f64);
    for run in 1..=plan.runs {
        for experiment in selected {
            let name = experiment.name;
            if !record.absent.contains_key(name) && !record.failed.contains_key(name) {
                progress.begin(run, plan.runs, name);
                let tell = |side: &str| progress.side(side);
                let mut bench = Bench { plan: &plan, experiment: name, record: &mut record, tell: &tell };
                match (experiment.run)(&mut bench) {
                    Ok(()) => {}
                    Err(NotMeasured::Absent(reason)) => drop(record.absent.insert(name.into(), reason)),
                    Err(NotMeasured::Failed(error)) => drop(record.failed.insert(name.into(), error)),
                }
            }
            progress.end((experiment.seconds)(&plan));
        }
    }
    progress.finish();
    record
}

/// Writes figures and page where they were asked for, and tells where that is.
pub fn keep(arguments: &Arguments, name: &str, record: &Record, page: &str) -> std::io::Result<()> {
    let dir = if arguments.save { machine::baseline_dir() } else { machine::report_dir() };
    let json = arguments.json.clone().unwrap_or_else(|| dir.join(format!("{name}.json")));
    let html = arguments.html.clone().unwrap_or_else(|| dir.join(format!("{name}.html")));
    record.write(&json)?;
    if let Some(folder) = html.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&html, page)?;
    println!("raw figures: {}\nreport:      {}", json.display(), html.display());
    Ok(())
}

fn ending_of(record: &Record, judged: &[Judged]) -> Ending {
    if !record.failed.is_empty() {
        return Ending::Failed;
    }
    let is_short = judged.iter().any(|row| row.verdict == Verdict::Short);
    if is_short { Ending::Short } else { Ending::Ok }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Unit;

    #[test]
    fn a_failure_outweighs_a_missed_target_and_absence_counts_for_nothing() {
        let judge = |record: &Record| ending_of(record, &judge_all(record, |name| name == "idle"));
        let mut record = Record::new(1.0, 1);
        record.absent.insert("idle".into(), "not here".into());
        assert_eq!(judge(&record), Ending::Ok);
        record.absent.clear();
        record.add("idle/system/cpu".into(), Unit::Percent, 5.0);
        record.add("idle/router/resident".into(), Unit::Bytes, 1.0);
        assert_eq!(judge(&record), Ending::Short);
        record.failed.insert("idle".into(), "broke".into());
        assert_eq!(judge(&record), Ending::Failed);
    }
}
