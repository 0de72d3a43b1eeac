#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| backendai_agent_fuzz::run("zmtp", input));
