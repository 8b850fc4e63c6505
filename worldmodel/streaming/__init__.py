"""Running rollouts, and the engines that compute them."""
