//! A doorbell that remembers a ring until it is heard, as an eventfd does.

#[cfg(loom)]
pub type Bell = loom::sync::Notify;

#[cfg(not(loom))]
#[derive(Default)]
pub struct Bell {
    has_rung: std::sync::Mutex<bool>,
    changed: std::sync::Condvar,
}

#[cfg(not(loom))]
impl Bell {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn notify(&self) {
        *self.has_rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    pub fn wait(&self) {
        let mut has_rung = self.has_rung.lock().unwrap();
        while !*has_rung {
            has_rung = self.changed.wait(has_rung).unwrap();
        }
        *has_rung = false;
    }
}
