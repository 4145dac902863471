"""What the tests on real servers share: servers, a proxy, data makers, checks of their own."""
