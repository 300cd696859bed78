//! The pod's processes: containers and execs, from the helper that makes them to the record of their end.

use std::io;
use std::os::fd::OwnedFd;

use super::container::{Container, exit_of, kill_cgroup, oom_kills, write_exit};
use super::spawn::{spawn_helper, start};
use super::{Helper, Job, Pod, Running};
use crate::log::LogFile;
use crate::protocol::{Answer, Exec, HelperReply, HelperRequest, Message, Run};
use crate::wire::Reader;
use crate::{clock, kernel};

impl Pod {
    pub(super) fn create(&mut self, connection: u64, request: u64, run: Run) -> Result<(), String> {
        if self.sandbox.is_none() || self.shutdown.is_some() {
            return Err("the sandbox is not ready".into());
        }
        let id = run.container.clone();
        let creating = |helper: &Helper| matches!(&helper.job, Job::Create(other) if other.run.container == id);
        if self.containers.contains_key(&id) || self.helpers.values().any(creating) {
            return Err(format!("container {id} was started already"));
        }
        let log = match &run.log_path {
            Some(path) => Some(
                LogFile::open(path, run.log_bytes_max)
                    .map_err(|err| format!("cannot open the log {}: {err}", path.display()))?,
            ),
            None => None,
        };
        let explain = |err: io::Error| format!("cannot make the container's streams: {err}");
        let (container, stdio) = Container::new(run, log).map_err(explain)?;
        let message = HelperRequest::Create(Box::new(container.run.clone()));
        let asker = (connection, request);
        self.help(asker, &message, stdio, Job::Create(Box::new(container)))
    }

    pub(super) fn exec(&mut self, connection: u64, request: u64, exec: Exec, fds: Vec<OwnedFd>) -> Result<(), String> {
        let container = self
            .containers
            .get(&exec.container)
            .filter(|container| container.exit.is_none());
        let container = container.ok_or_else(|| format!("container {} is not running", exec.container))?;
        let message = HelperRequest::Exec {
            pid: container.pid,
            start_ticks: container.start_ticks,
            bundle: container.run.bundle.clone(),
            cgroups: container.run.cgroups.clone(),
            args: exec.args,
            tty: exec.tty,
            oom_score_adj: container.run.oom_score_adj,
        };
        let mut fds = fds.into_iter();
        let mut stdio = [const { None }; 3];
        if !exec.tty {
            if exec.stdin {
                stdio[0] = Some(fds.next().ok_or("no descriptor for stdin came along")?);
            }
            stdio[1] = Some(fds.next().ok_or("no descriptor for stdout came along")?);
            stdio[2] = Some(fds.next().ok_or("no descriptor for stderr came along")?);
        }
        let job = Job::Exec {
            exec: exec.exec,
            tty: exec.tty,
        };
        self.help((connection, request), &message, stdio, job)
    }

    /// Starts a helper, and notes for which request of which connection.
    fn help(
        &mut self,
        (connection, request): (u64, u64),
        message: &HelperRequest,
        stdio: [Option<OwnedFd>; 3],
        job: Job,
    ) -> Result<(), String> {
        let (pid, socket) = spawn_helper(message, stdio).map_err(|err| format!("cannot start the helper: {err}"))?;
        let helper = Helper {
            socket,
            connection,
            request,
            job,
        };
        self.helpers.insert(pid, helper);
        Ok(())
    }

    pub(super) fn kill(&mut self, container: &str, signal: i32) -> Result<Answer, String> {
        let container = self
            .containers
            .get(container)
            .ok_or_else(|| format!("no container {container}"))?;
        if container.exit.is_some() {
            return Ok(Answer::Done);
        }
        // The process was not waited for, so its number is still its own.
        kernel::kill(container.pid, signal).map_err(|err| err.to_string())?;
        Ok(Answer::Done)
    }

    pub(super) fn reopen_log(&mut self, id: &str) -> Result<Answer, String> {
        let container = self
            .containers
            .get_mut(id)
            .ok_or_else(|| format!("no container {id}"))?;
        match &mut container.log {
            Some(log) => log
                .reopen()
                .map(|()| Answer::Done)
                .map_err(|err| format!("cannot open the log: {err}")),
            None => Ok(Answer::Done),
        }
    }

    pub(super) fn forget(&mut self, id: &str) -> Result<Answer, String> {
        match self.containers.get(id) {
            Some(container) if container.exit.is_none() => Err(format!("container {id} is running")),
            _ => {
                self.containers.remove(id);
                Ok(Answer::Done)
            }
        }
    }

    /// A child ended: a helper, a container, an exec, or an orphan of a container, of which nobody wants to know.
    pub(super) fn ended(&mut self, ended: kernel::Ended) {
        if let Some(helper) = self.helpers.remove(&ended.pid) {
            self.helper_ended(helper);
            return;
        }
        if self.process_ended(ended) {
            return;
        }
        // The process of a helper that is still at work may be reaped before the helper is.
        if !self.helpers.is_empty() {
            self.ended_early.push_back(ended);
            self.ended_early.truncate(1024);
        }
    }

    fn process_ended(&mut self, ended: kernel::Ended) -> bool {
        if let Some(running) = self.execs.remove(&ended.pid) {
            let exit = exit_of(ended, running.started_ns, false);
            self.broadcast(&Message::ExecExited {
                exec: running.exec,
                exit,
            });
            return true;
        }
        let found = self
            .containers
            .iter_mut()
            .find(|(_, container)| container.pid == ended.pid && container.exit.is_none());
        let Some((id, container)) = found else {
            return false;
        };
        let id = id.clone();
        if container.run.kill_rest {
            kill_cgroup(&container.run.cgroups);
        }
        container.drain();
        let oom_killed = container
            .run
            .oom_file
            .as_deref()
            .is_some_and(|file| oom_kills(file) > 0);
        let exit = exit_of(ended, container.started_ns, oom_killed);
        container.exit = Some(exit);
        container.flush_sinks();
        if let Some(sandbox) = &self.sandbox
            && let Err(err) = write_exit(&sandbox.exits, &id, &exit)
        {
            eprintln!("shim: cannot write the exit record of {id}: {err}");
        }
        self.broadcast(&Message::ContainerExited { container: id, exit });
        true
    }

    fn helper_ended(&mut self, helper: Helper) {
        // The container's process holds a copy of the other end until it runs its program: there may be no end of file.
        let outcome = helper
            .socket
            .set_nonblocking(true)
            .and_then(|()| Reader::default().read::<HelperReply>(&helper.socket))
            .map_err(|err| format!("the helper ended without an answer: {err}"))
            .and_then(|(reply, fds)| Ok((reply.result?, reply.warnings, fds)));
        let (pid, warnings, mut fds) = match outcome {
            Ok(outcome) => outcome,
            Err(text) => return self.reply(helper.connection, helper.request, Err(text), Vec::new()),
        };
        let started_ns = clock::now_ns();
        let start_ticks = kernel::start_ticks(pid).unwrap_or_default();
        let started = |warnings| Answer::Started {
            pid,
            start_ticks,
            started_ns,
            warnings,
        };
        match helper.job {
            Job::Create(mut container) => {
                if let Some(terminal) = fds.pop() {
                    container.take_terminal(terminal);
                }
                if let Err(err) = start(&container.run.oci_root.join(&container.run.container)) {
                    let _ = kernel::kill(pid, libc::SIGKILL);
                    let text = format!("cannot start the container: {err}");
                    return self.reply(helper.connection, helper.request, Err(text), Vec::new());
                }
                (container.pid, container.start_ticks, container.started_ns) = (pid, start_ticks, started_ns);
                self.containers.insert(container.run.container.clone(), *container);
                self.reply(helper.connection, helper.request, Ok(started(warnings)), Vec::new());
            }
            Job::Exec { exec, tty } => {
                self.execs.insert(pid, Running { exec, started_ns });
                let fds = if tty { std::mem::take(&mut fds) } else { Vec::new() };
                self.reply(helper.connection, helper.request, Ok(started(warnings)), fds);
            }
        }
        // It may have ended before its helper was reaped.
        let early = self.ended_early.iter().position(|ended| ended.pid == pid);
        if let Some(ended) = early.and_then(|index| self.ended_early.remove(index)) {
            self.process_ended(ended);
        }
    }
}
