//! Ctrl-C for commands that end in good order.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::ending::Failure;

/// True once SIGINT or SIGTERM came. The second one ends the program at once, report or not.
pub fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop)).map_err(Failure::usage)?;
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Failure::usage)?;
    }
    Ok(stop)
}
