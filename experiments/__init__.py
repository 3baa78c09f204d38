"""Link profiles, baselines, runs, tables and plots."""
