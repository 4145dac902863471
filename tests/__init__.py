"""Fast tests: no server, no network, seconds. A package, so that `integration/` can run the same contract."""
