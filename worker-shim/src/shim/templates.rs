//! Stage 6 of 8: the shim's loop, as far as it goes about templates: which there are to be, and which place gets the next copy.
//!
//! In: news of templates, places that wait for a process.  Out: orders; processes in their places.
//! Always: one template for each edition that is kept up and is to be copied, for all shards; an edition that is not kept up any more
//! loses its own at once, because nobody waits for it.
//! Always: a place that waits for a copy has one under way, or stands in line for its template.
//! Never: blocks for a template: each has its time.

use rustix::process::Signal;

use super::Shim;
use super::failure::{CODE_CANNOT_START, Failure};
use crate::function::Prospect;
use crate::life::{Action, Event, Life};
use crate::place::Place;
use crate::process::{self, AdoptRefused, Exit, Role};
use crate::template::{Newborn, News, Template};

impl Shim {
    /// Everything about templates that a turn has to do.
    pub(super) fn turn_templates(&mut self, now_ns: u64) {
        for index in 0..self.templates.len() {
            while let Some(news) = self.templates[index].turn(now_ns) {
                self.on_news(now_ns, index, news);
            }
            self.on_template_event(now_ns, index, Event::Time);
        }
        self.order_copies(now_ns);
        self.settle_templates(now_ns);
        self.templates.retain(|template| !template.life.is_gone() || template.process.is_some());
    }

    /// Makes the templates that are missing; those that are not wanted end.
    fn settle_templates(&mut self, now_ns: u64) {
        for index in 0..self.templates.len() {
            let template = &self.templates[index];
            if template.life.is_to_stay()
                && !self.is_template_wanted(template.function, template.program.edition)
            {
                self.on_template_event(now_ns, index, Event::StopAsked);
            }
        }
        for function in 0..self.functions.len() {
            let programs = self.places.iter().filter(|place| place.function == function);
            let mut programs: Vec<_> = programs.map(|place| place.program.clone()).collect();
            programs.push(self.functions[function].config.clone());
            for program in programs.into_iter().filter(|program| program.snapshot) {
                let is_there = |template: &Template| {
                    template.function == function
                        && template.program.edition == program.edition
                        && template.life.is_to_stay()
                };
                if self.is_template_wanted(function, program.edition) && !self.templates.iter().any(is_there)
                {
                    let is_free = |number: &usize| {
                        let mut others = self.templates.iter().filter(|other| other.function == function);
                        others.all(|other| other.number != *number)
                    };
                    let number = (0..).find(is_free).unwrap_or_default();
                    self.templates.push(Template::new(function, number, program, &self.logs_dir, now_ns));
                }
            }
        }
    }

    fn is_template_wanted(&self, function: usize, edition: u64) -> bool {
        self.stopping.is_none()
            && (0..self.config.shards)
                .any(|shard| self.functions[function].prospect(shard, edition) == Prospect::Kept)
    }

    /// Gives each template that has nothing to do the next place that waits for a copy of it.
    fn order_copies(&mut self, now_ns: u64) {
        for index in 0..self.templates.len() {
            let template = &self.templates[index];
            if !template.is_free() {
                continue;
            }
            let is_waiting = |place: &&Place| {
                place.function == template.function
                    && place.program.edition == template.program.edition
                    && matches!(place.life, Life::Spawning { .. })
            };
            let Some(place) = self.places.iter().find(is_waiting) else {
                self.templates[index].on_idle();
                continue;
            };
            if template.is_outdated() {
                // What a process that is started now would run, the next copy is to run.
                self.templates[index].log.remark(now_ns, "its program was replaced");
                self.on_template_event(now_ns, index, Event::StopAsked);
                continue;
            }
            let (number, attach_socket) = (place.number, place.attach_socket.clone());
            if let Err(error) = self.templates[index].order(now_ns, number, &attach_socket) {
                let function = self.templates[index].function;
                self.on_not_copied(now_ns, function, number, format!("cannot ask for a copy: {error}"));
            }
        }
    }

    /// The place that waits for a copy does not want it any more.
    pub(super) fn withdraw(&mut self, place: usize) {
        let (function, number) = (self.places[place].function, self.places[place].number);
        for template in self.templates.iter_mut().filter(|template| template.function == function) {
            template.cancel(number);
        }
    }

    fn on_news(&mut self, now_ns: u64, index: usize, news: News) {
        let function = self.templates[index].function;
        match news {
            News::Ready => {
                self.templates[index].log.remark(now_ns, "initialised");
                self.on_template_event(now_ns, index, Event::Started);
            }
            News::Born(newborn) => match self.adopt(now_ns, function, newborn) {
                Ok(()) => self.templates[index].copies += 1,
                Err((number, refused)) => self.on_not_copied(now_ns, function, number, refused.to_string()),
            },
            News::NotCopied { place, reason } => self.on_not_copied(now_ns, function, place, reason),
        }
    }

    /// Gives a copy to the place that waits for it.
    fn adopt(&mut self, now_ns: u64, function: usize, newborn: Newborn) -> Result<(), (usize, AdoptRefused)> {
        let (number, pid) = (newborn.place, newborn.pid);
        let processes = self.places.iter().map(|place| &place.process);
        let mut processes = processes.chain(self.templates.iter().map(|template| &template.process));
        if processes.any(|process| process.as_ref().is_some_and(|process| process.pid == pid)) {
            return Err((number, AdoptRefused::Known));
        }
        let Some(index) = self.place_in_line(function, number) else { return Ok(()) };
        let process = newborn.adopt().map_err(|refused| (number, refused))?;
        self.on_started(now_ns, index, process);
        Ok(())
    }

    fn on_not_copied(&mut self, now_ns: u64, function: usize, number: usize, reason: String) {
        if let Some(index) = self.place_in_line(function, number) {
            self.on_spawn_failed(now_ns, index, reason);
        }
    }

    /// The place of this number, while it waits for its process.
    fn place_in_line(&self, function: usize, number: usize) -> Option<usize> {
        let is_it = |place: &Place| {
            place.function == function
                && place.number == number
                && matches!(place.life, Life::Spawning { .. })
        };
        self.places.iter().position(is_it)
    }

    /// Feeds one event to a template and does what its life asks for.
    pub(super) fn on_template_event(&mut self, now_ns: u64, index: usize, event: Event) {
        let template = &mut self.templates[index];
        match template.life.on_event(now_ns, &self.patience, event) {
            Action::None => {}
            Action::Spawn => self.start_template(now_ns, index),
            Action::Terminate => template.signal_group(Signal::TERM),
            // It has not begun to serve anybody: there is nothing to end in peace.
            Action::Withdraw => template.signal_group(Signal::KILL),
            Action::Kill => {
                template.log.remark(now_ns, "did not end in time: SIGKILL");
                template.signal_group(Signal::KILL);
            }
        }
    }

    fn start_template(&mut self, now_ns: u64, index: usize) {
        let template = &mut self.templates[index];
        let started = template.open().and_then(|socket| {
            let role = Role::Template { run_dir: &self.config.run_dir, socket };
            process::spawn(super::program(&self.config, &self.mark, &template.program, role))
        });
        match started {
            Ok(process) => {
                template.log.started(now_ns, process.id());
                template.on_started(now_ns, process);
            }
            Err(error) => {
                let reason = format!("cannot start {}: {error}", template.program.command[0]);
                template.log.remark(now_ns, &reason);
                self.functions[template.function].tally.spawn_failures += 1;
                let jitter = self.jitter.next_u32();
                self.on_template_event(now_ns, index, Event::SpawnFailed { jitter });
                self.tell_failure(
                    now_ns,
                    self.template_failure(index, CODE_CANNOT_START, reason, Vec::new()),
                );
            }
        }
    }

    pub(super) fn on_template_exit(&mut self, now_ns: u64, index: usize, exit: Exit) {
        let template = &mut self.templates[index];
        template.read_last_output(now_ns, &mut self.buffer);
        let stderr = template.log.ended(now_ns, &exit.cause.to_string());
        let was_asked = !template.life.is_to_stay();
        let (failed, place) = template.on_ended();
        let reason = failed.map_or_else(|| exit.cause.to_string(), |failed| failed.to_string());
        let (function, is_gone) = (template.function, template.life.is_gone());
        if !is_gone {
            let jitter = self.jitter.next_u32();
            self.on_template_event(now_ns, index, Event::Exited { jitter });
        }
        if let Some(place) = place {
            self.on_not_copied(
                now_ns,
                function,
                place,
                "its template ended before the copy was there".into(),
            );
        }
        if !was_asked {
            self.functions[function].tally.exits += 1;
            // Of one that was killed for what it did, the code says nothing.
            let exit_code = exit.cause.as_exit_code();
            self.tell_failure(now_ns, self.template_failure(index, exit_code, reason, stderr));
        }
    }

    fn template_failure(&self, index: usize, exit_code: u32, reason: String, stderr: Vec<String>) -> Failure {
        let template = &self.templates[index];
        let has_process = |place: &Place| place.function == template.function && place.process.is_some();
        Failure {
            who: format!("{}.template-{}", template.program.name, template.number),
            function: template.function,
            place: None,
            shards: 0..self.links.len(),
            life: template.life,
            is_alone: !self.places.iter().any(has_process),
            exit_code,
            reason,
            stderr,
        }
    }
}
