"""Link profiles, baselines, runs, tables and plots: the paper's comparison (S2), made again by one command.

Everything that is compared runs as a process of its own and is driven from outside: ours by the commands' contract
(design section 12), the others by their own programs. Refuses to do: importing the parts that it measures.
"""
