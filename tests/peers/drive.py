"""The agent through the RPC client that the manager uses: aiozmq.rpc, msgpack and libzmq from PyPI.

Prints one line a check, PASS or FAIL, and ends with 1 when any failed.  What a manager would do in the life of
two sessions is done here in order, each call over a connection of its own, as the manager makes them.
"""
import argparse
import asyncio
import sys
import traceback
import uuid

import zmq
from aiozmq import rpc
from aiozmq.rpc.base import GenericError, NotFoundError, ParametersError

# What the manager adds to the client's own table of exceptions.
ERRORS = {'concurrent.futures._base.TimeoutError': asyncio.TimeoutError}
# The manager's limits in seconds; any other call gets 10.
LIMITS = {'create_kernel': 3, 'destroy_kernel': 10, 'restart_kernel': 30, 'execute': 300,
          'interrupt_kernel': 5, 'get_completions': 5, 'upload_file': 180, 'get_logs': 5}
STATISTICS = {'cpu_used', 'mem_max_bytes', 'mem_cur_bytes', 'net_rx_bytes', 'net_tx_bytes', 'io_read_bytes',
              'io_write_bytes', 'io_max_scratch_size', 'io_cur_scratch_size'}
PORTS = ('repl_in_port', 'repl_out_port', 'stdin_port', 'stdout_port')


class Checks:
    def __init__(self):
        self.failed = 0

    def that(self, name, truth, seen=None):
        self.failed += not truth
        print('PASS' if truth else 'FAIL', name, '' if truth else repr(seen)[:600], flush=True)

    def equal(self, name, seen, expected):
        self.that(name, seen == expected, (seen, 'expected', expected))


async def call(address, method, *args, **kwargs):
    client = await rpc.connect_rpc(connect=address, error_table=ERRORS)
    client.transport.setsockopt(zmq.LINGER, 50)
    try:
        limit = LIMITS.get(method, 10)
        return await asyncio.wait_for(getattr(client.call, method)(*args, **kwargs), limit)
    finally:
        client.close()
        await client.wait_closed()


async def raised(address, method, *args, **kwargs):
    """The exception that a call ends with, or the answer where there is none."""
    try:
        return await call(address, method, *args, **kwargs)
    except Exception as error:
        return error


async def follow(address, kernel, mode, code, opts, inputs=()):
    """A run to its end: the last answer, and everything on the console."""
    run, inputs, console = uuid.uuid4().hex, list(inputs), []
    answer = await call(address, 'execute', 2, kernel, run, mode, code, opts)
    for _ in range(20):
        console.extend(answer['console'])
        if answer['status'] == 'finished':
            break
        if answer['status'] == 'waiting-input':
            answer = await call(address, 'execute', 2, kernel, run, 'input', inputs.pop(0), {})
        else:
            answer = await call(address, 'execute', 2, kernel, run, 'continue', '', {})
    return answer, console


def text(console, kind='stdout'):
    return ''.join(data for its_kind, data in console if its_kind == kind)


async def transport(check, agent):
    check.equal('ping answers', await call(agent, 'ping', 'héllo ☃'), 'héllo ☃')
    check.equal('ping by keyword', await call(agent, 'ping', msg='kw'), 'kw')
    error = await raised(agent, 'no_such_method', 1)
    check.that('unknown method is NotFoundError', type(error) is NotFoundError, error)
    check.equal('NotFoundError names the method', getattr(error, 'args', None), ('no_such_method',))
    for name, args in (('no', ()), ('two', ('a', 'b'))):
        error = await raised(agent, 'ping', *args)
        check.that('ping with %s arguments is ParametersError' % name, type(error) is ParametersError, error)
    # Never a path that exists: an agent that takes it would delete what it names, as root.
    error = await raised(agent, 'destroy_kernel', 'not-a-uuid')
    check.that('a bad kernel id is AssertionError', type(error) is AssertionError, error)
    answers = await asyncio.gather(*(call(agent, 'ping', str(i)) for i in range(50)))
    check.equal('fifty callers at once', answers, [str(i) for i in range(50)])
    client = await rpc.connect_rpc(connect=agent, error_table=ERRORS)
    answers = await asyncio.wait_for(asyncio.gather(*(client.call.ping(str(i)) for i in range(2000))), 30)
    check.equal('two thousand calls over one connection', answers, [str(i) for i in range(2000)])
    client.close()
    await client.wait_closed()


async def session(check, agent, lang):
    kernel = str(uuid.uuid4())
    config = {'lang': lang, 'limits': {'mem_slot': 256, 'cpu_slot': 1.0, 'gpu_slot': 0.0}, 'mounts': [],
              'environ': {'GREETING': 'hello'}}
    made = await call(agent, 'create_kernel', kernel, config)
    check.equal('create_kernel answers the id', made['id'], kernel)
    check.that('ports are ints', all(type(made[port]) is int for port in PORTS), made)
    check.that('cpu_set is a list of ints', [type(cpu) for cpu in made['cpu_set']] == [int], made)
    try:
        await runs(check, agent, kernel)
        await restart(check, agent, kernel, config, made)
    finally:
        statistics = await call(agent, 'destroy_kernel', kernel)
    check.equal('destroy_kernel answers the statistics', set(statistics or ()), STATISTICS)
    check.equal('destroying again answers nil', await call(agent, 'destroy_kernel', kernel), None)
    error = await raised(agent, 'execute', 2, kernel, 'r', 'query', '1', {})
    # The manager's error handling knows built-in exceptions only.
    check.that('a kernel that is gone is a built-in exception',
               isinstance(error, Exception) and type(error).__module__ == 'builtins', error)


async def runs(check, agent, kernel):
    answer, console = await follow(agent, kernel, 'query', 'import os\nprint(os.environ["GREETING"])', {})
    check.equal('query output', text(console), 'hello\n')
    check.equal('query exit code', answer['exitCode'], 0)
    for version in (1, 2, 3):
        answer = await call(agent, 'execute', version, kernel, 'v%d' % version, 'query', 'print(1)', {})
        out = answer['stdout'] if version == 1 else text(answer['console'])
        check.equal('api version %d' % version, (answer['runId'], answer['status'], out),
                    ('v%d' % version, 'finished', '1\n'))
    answer, console = await follow(agent, kernel, 'query', 'print("hi", input("name? "))', {}, ['you'])
    check.equal('input', text(console), 'name? hi you\n')
    answer, console = await follow(agent, kernel, 'query', 'import time\ntime.sleep(3)\nprint("late")', {})
    check.equal('a run of three seconds', text(console), 'late\n')
    check.equal('upload_file', await call(agent, 'upload_file', kernel, 'main.py', b'print("from a file")'), None)
    opts = {'build': 'echo built', 'exec': 'python3 main.py'}
    answer, console = await follow(agent, kernel, 'batch', '', opts)
    check.equal('batch', (text(console), answer['exitCode']), ('built\nfrom a file\n', 0))
    error = await raised(agent, 'execute', 2, kernel, 'nobody', 'continue', '', {})
    check.that('continue of an unknown run is AssertionError', type(error) is AssertionError, error)
    opts = {'row': 0, 'col': 4, 'line': 'impo', 'post': ''}
    for args in (('impo', opts), ('query', 'impo', opts)):
        answer = await call(agent, 'get_completions', kernel, *args)
        check.that('completions with %d arguments' % (len(args) + 1),
                   any(found.startswith('import') for found in answer['completions']), answer)
    check.equal('interrupt_kernel', await call(agent, 'interrupt_kernel', kernel), {'status': 'finished'})
    logs = await call(agent, 'get_logs', kernel)
    check.that('get_logs', set(logs) == {'logs'} and type(logs['logs']) is str, logs)


async def restart(check, agent, kernel, config, made):
    pending = asyncio.ensure_future(
        call(agent, 'execute', 2, kernel, 'long', 'query', 'import time\ntime.sleep(30)', {}))
    # The two calls go over two connections; these round trips let the first one arrive.
    for _ in range(5):
        await call(agent, 'ping', 'x')
    again = dict(config, environ={}, cpu_set=list(made['cpu_set']), gpu_set=[])
    answer = await call(agent, 'restart_kernel', kernel, again)
    check.that('restart answers int ports', all(type(answer[port]) is int for port in PORTS), answer)
    check.that('restart makes another container', answer['container_id'] != made['container_id'], answer)
    cut = await pending
    check.that('a run cut off answers nil', cut is None, cut)
    _, console = await follow(agent, kernel, 'query', 'import os\nprint(os.environ.get("GREETING"))', {})
    check.equal('the environment survives a restart', text(console), 'hello\n')


async def refusals(check, agent, tiny):
    config = {'lang': 'no-such-image:latest', 'limits': {'mem_slot': 64, 'cpu_slot': 1, 'gpu_slot': 0}}
    error = await raised(agent, 'create_kernel', str(uuid.uuid4()), config)
    check.that('an unknown image is a built-in exception',
               isinstance(error, (AssertionError, RuntimeError)), error)
    kernel = str(uuid.uuid4())
    await call(agent, 'create_kernel', kernel, dict(config, lang=tiny))
    for name in ('../x', '../../x'):
        error = await raised(agent, 'upload_file', kernel, name, b'x')
        check.that('upload to %s is AssertionError' % name, type(error) is AssertionError, error)
    await call(agent, 'destroy_kernel', kernel)
    errors = [await raised(agent, method, str(uuid.uuid4())) for method in ('get_logs', 'interrupt_kernel')]
    check.that('no error is strange to the client', not any(type(e) is GenericError for e in errors), errors)


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option, meaning in (('agent', 'tcp://host:port'), ('kernel', 'image that runs Python'),
                            ('tiny', 'image that sleeps')):
        parser.add_argument('--' + option, required=True, help=meaning)
    options = parser.parse_args()
    check = Checks()
    parts = (transport(check, options.agent), session(check, options.agent, options.kernel),
             refusals(check, options.agent, options.tiny))
    for part in parts:
        try:
            await part
        except Exception:
            check.that('%s came to its end' % part.__name__, False, traceback.format_exc())
    return min(check.failed, 1)


if __name__ == '__main__':
    sys.exit(asyncio.run(main()))
