#!/usr/bin/env escript
%% The paper's server (S2): for each of N nodes a listening socket, {packet,4}, binary, reuseaddr; one process accepts
%% and spawns the next acceptor; a message is one term [Filename | Bytes]; it writes the file, answers with the term
%% Filename, and closes. Nothing is flushed. Usage: server.escript ADDRESS FIRST_PORT N FOLDER
main([Address, First, N, Folder]) ->
    {ok, Ip} = inet:parse_address(Address),
    [listen(Ip, list_to_integer(First) + I, Folder) || I <- lists:seq(0, list_to_integer(N) - 1)],
    receive stop -> ok end.

listen(Ip, Port, Folder) ->
    Options = [binary, {packet, 4}, {reuseaddr, true}, {active, false}, {ip, Ip}, {backlog, 128}],
    {ok, Listening} = gen_tcp:listen(Port, Options),
    Acceptor = spawn(fun() -> receive go -> accept(Listening, Folder) end end),
    ok = gen_tcp:controlling_process(Listening, Acceptor),
    Acceptor ! go.

accept(Listening, Folder) ->
    {ok, Socket} = gen_tcp:accept(Listening),
    Next = spawn(fun() -> receive go -> accept(Listening, Folder) end end),
    ok = gen_tcp:controlling_process(Listening, Next),
    Next ! go,
    serve(Socket, Folder).

serve(Socket, Folder) ->
    {ok, Packet} = gen_tcp:recv(Socket, 0),
    [Filename | Bytes] = binary_to_term(Packet, [safe]),
    ok = file:write_file(filename:join(Folder, filename:basename(Filename)), Bytes, [raw]),
    ok = gen_tcp:send(Socket, term_to_binary(Filename)),
    gen_tcp:close(Socket).
