//! A record to be read: as text for a terminal, as one page with plots for a browser.
//!
//! Why not the pieces of the load generator's page: its plots are of one run over time and by percentile, these are of
//! repeated runs beside each other. Only the look is the same.

pub mod html;
pub mod plot;
pub mod text;
