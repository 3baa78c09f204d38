#!/usr/bin/env escript
%% The paper's client (S2): the files are divided evenly among N nodes, and a process for each node sends its files one
%% after another: connect, the term [Filename | Bytes], wait for the answer, closed by the server. Prints the seconds
%% from the first connect to the last answer. Usage: client.escript ADDRESS FIRST_PORT N LIST (a file of paths)
main([Address, First, Count, List]) ->
    {ok, Text} = file:read_file(List),
    Paths = string:lexemes(binary_to_list(Text), "\n"),
    N = list_to_integer(Count),
    Self = self(),
    Begin = erlang:monotonic_time(microsecond),
    Nodes = [spawn_link(fun() -> send_all(Address, list_to_integer(First) + I, share(Paths, I, N)), Self ! {self(), done} end)
             || I <- lists:seq(0, N - 1)],
    [receive {Node, done} -> ok end || Node <- Nodes],
    io:format("{\"seconds\": ~.6f}~n", [(erlang:monotonic_time(microsecond) - Begin) / 1.0e6]).

share(Paths, I, N) ->
    [Path || {Number, Path} <- lists:zip(lists:seq(0, length(Paths) - 1), Paths), Number rem N == I].

send_all(Address, Port, Paths) ->
    [ok = send(Address, Port, Path) || Path <- Paths].

send(Address, Port, Path) ->
    {ok, Bytes} = file:read_file(Path),
    Filename = filename:basename(Path),
    {ok, Socket} = gen_tcp:connect(Address, Port, [binary, {packet, 4}, {active, false}]),
    ok = gen_tcp:send(Socket, term_to_binary([Filename | Bytes])),
    {ok, Answer} = gen_tcp:recv(Socket, 0),
    Filename = binary_to_term(Answer),
    {error, closed} = gen_tcp:recv(Socket, 0),
    ok.
