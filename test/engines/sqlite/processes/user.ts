/** Another process on the store: does what its task says, and reports to the test. */

import type { Engine, Grant, Source } from '../../../../src/engine.ts'
import { connectSqlite } from '../../../../src/engines/sqlite/index.ts'
import { silentLogger, systemEnvironment } from '../../../../src/environment/index.ts'
import { PosthornError } from '../../../../src/errors.ts'
import { newGroup, newMessage, SUBSCRIPTION, TOPIC } from '../../../conformance/messages.ts'
import type { Order, Report, Task } from './child.ts'

const task = JSON.parse(process.argv[2]!) as Task

function report(message: Report): void {
  process.send!(message)
}

async function settle(source: Source, grants: readonly Grant[]): Promise<void> {
  const settlements = grants.map(({ lease, messages }) => {
    const acked = [messages[0]!.offset, messages.at(-1)!.offset + 1]
    return { lease, acked, exceptions: [] }
  })
  const fenced = await source.settle(settlements)
  if (fenced.length > 0) report({ kind: 'fenced', count: fenced.length })
}

async function handle(source: Source, grants: readonly Grant[]): Promise<void> {
  for (const { messages, attempt, isolated } of grants) {
    const data = messages.map(({ event }) => event.data)
    report({ kind: 'granted', data, attempt, isolated })
    if (task.role === 'suicide' && data.includes('poison')) process.kill(process.pid, 'SIGKILL')
  }
  if (task.role !== 'hold') return settle(source, grants)
  process.on('message', (order: Order) => {
    if (order.kind === 'settle') void settle(source, grants)
  })
}

async function consume(engine: Engine): Promise<void> {
  const source = await engine.openSource({
    topic: TOPIC,
    subscription: SUBSCRIPTION,
    handlerTimeoutMs: task.handlerTimeoutMs,
    limits: [],
    onCancelled() {},
    onSurplus() {},
    onLeasesLost: (_, reason) => report({ kind: 'lost', reason }),
    onDamage() {},
  })
  report({ kind: 'ready' })
  for (;;) {
    const limits = { messagesMax: task.messagesMax, bytesMax: 2 ** 20 }
    await handle(source, await source.pull(limits, AbortSignal.timeout(60_000)))
  }
}

async function publish(engine: Engine, data: readonly unknown[]): Promise<void> {
  await engine.append([newGroup(data.map((item) => newMessage(item, systemEnvironment.clock.now())))])
  report({ kind: 'published' })
}

function obey(engine: Engine, order: Order): void {
  if (order.kind === 'publish') void publish(engine, order.data)
  if (order.kind === 'block') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, order.durationMs)
}

async function work(): Promise<void> {
  const environment = { ...systemEnvironment, logger: silentLogger }
  const engine = await connectSqlite(`sqlite:${task.file}`, { environment, leaseMs: task.leaseMs })
  process.on('message', (order: Order) => obey(engine, order))
  if (task.role === 'publish' || task.role === 'open') report({ kind: 'ready' })
  else await consume(engine)
}

process.on('disconnect', () => process.exit(0))
await work().catch((error: unknown) => {
  report({ kind: 'failed', code: error instanceof PosthornError ? error.code : String(error) })
})
