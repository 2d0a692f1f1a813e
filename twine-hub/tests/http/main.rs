//! The hub's HTTP side over real sockets: what is answered to good input, to bad, and to none.

mod cookies;
mod life;
mod origins;
mod publishing;
mod reading;
mod requests;
mod silence;
mod support;
mod websocket;
