"""Histories of the node's store and the agent's spool on a simulated disk, each from one seed, replayable.

| module | what |
|---|---|
| `filesystem` | files and folders; of each what processes see and what would survive; power cuts, failed flushes |
| `running` | what fails on the machine, and the moment at which everything stops |
| `machine` | the system calls |
| `strands` | calls in threads, one at a time, in an order that the seed decides |
| `world` | puts all of that in the place of the real thing under the production code |
| `journal` | what was acknowledged, kept outside, and what may be found after a restart |
| `objects` | what is stored, and ways to rot |
| `of_node`, `of_spool` | the steps that are drawn |
| `campaign` | one history by its seed, many, and what is written down of them |
| `mutants` | mistakes put into the production code on purpose, each of which histories must notice |
| `sqlite_abi`, `sqlite_locks`, `sqlite_vfs` | the same machine under SQLite's own code |
| `databases`, `crash_states` | the catalogue, its rebuild and the agent's queue, cut at every system call |
| `database_mutants` | mistakes in the use of SQLite, each of which a cut must show |

`python -m tests.faults.histories --seed 7` replays one and prints its steps. What a drive that lies about its flushes
does is not simulated: nothing on this side of it could help.
"""
