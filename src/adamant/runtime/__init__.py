"""What any training runs in, whatever it trains: the loop, checkpoints, the log, averages, schedules, optimisers."""
