"""The behaviour of the emulated API: state, rules and results. No I/O."""
