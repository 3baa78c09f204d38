#!/usr/bin/env escript
%% The paper's client: one process and one connection a file, all at once, {packet,4},
%% [Filename | Bytes], and the term Filename as the answer, after which the server closes.
%% Names go as strings, binaries and atoms in turn.
main([Port | Paths]) ->
    Self = self(),
    Indexed = lists:zip(lists:seq(0, length(Paths) - 1), Paths),
    [spawn_link(fun() -> Self ! {done, send(list_to_integer(Port), name(I, filename:basename(P)), P)} end)
     || {I, P} <- Indexed],
    [receive {done, ok} -> ok after 60000 -> halt(1) end || _ <- Paths],
    io:format("~b answered~n", [length(Paths)]).

name(I, Base) when I rem 3 == 0 -> Base;
name(I, Base) when I rem 3 == 1 -> list_to_binary(Base);
name(_, Base) -> list_to_atom(Base).

send(Port, Name, Path) ->
    {ok, Bytes} = file:read_file(Path),
    {ok, Socket} = gen_tcp:connect("127.0.0.1", Port, [binary, {packet, 4}, {active, false}]),
    ok = gen_tcp:send(Socket, term_to_binary([Name | Bytes])),
    {ok, Answer} = gen_tcp:recv(Socket, 0),
    Name = binary_to_term(Answer),
    {error, closed} = gen_tcp:recv(Socket, 0),
    ok.
