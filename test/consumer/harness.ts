import {
  type Consumer,
  type ConsumerSettings,
  EventLoopWatch,
  type Handlers,
  startConsumer,
} from '../../src/consumer/consumer.ts'
import type { StoredEvent } from '../../src/engine.ts'
import type { Clock, Environment, LogFields, Logger } from '../../src/environment/index.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { engineOf, FakeSource, settleDown } from './fake-source.ts'

export const START_MS = 1_000_000

export class RecordingLogger implements Logger {
  readonly lines: { level: string; message: string; fields: LogFields }[] = []

  debug(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: 'debug', message, fields })
  }
  info(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: 'info', message, fields })
  }
  warn(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: 'warn', message, fields })
  }
  error(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: 'error', message, fields })
  }

  /** The lines of one level that hold `text`, in the message or in a field. */
  matching(level: string, text: string): string[] {
    const lines = this.lines.filter((line) => line.level === level).map((line) => JSON.stringify(line))
    return lines.filter((line) => line.includes(text))
  }
}

const defaults: ConsumerSettings = {
  topic: 'orders',
  subscription: 'billing',
  concurrency: 10,
  timeoutMs: 30_000,
  retry: { attempts: 3, backoff: { type: 'fixed', delayMs: 1_000, maxMs: 60_000, jitter: 'none' } },
  drainMs: 10_000,
  ordered: false,
  limits: [],
  transactional: false,
}

export interface Rig {
  readonly source: FakeSource
  readonly consumer: Consumer
  readonly clock: VirtualClock
  readonly logger: RecordingLogger
}

/** A consumer of a fake source on a virtual clock, ready. */
export function startRig(
  handlers: Handlers,
  changes: Partial<ConsumerSettings> = {},
  clock = new VirtualClock(START_MS),
): Promise<Rig> {
  return startRigOn(new FakeSource(), handlers, clock, { ...defaults, ...changes })
}

/** As `startRig`, of a source that is there already. */
export async function startRigOn(
  source: FakeSource,
  handlers: Handlers,
  clock: VirtualClock,
  settings: ConsumerSettings,
): Promise<Rig> {
  const logger = new RecordingLogger()
  const environment = environmentOf(clock, logger)
  const watch = new EventLoopWatch(environment)
  const consumer = startConsumer(engineOf(source), environment, settings, handlers, watch)
  await consumer.ready
  await settleDown()
  return { source, consumer, clock, logger }
}

export function environmentOf(clock: Clock, logger: Logger): Environment {
  return { clock, logger, random: { number: () => 0.5, fill: () => {} } }
}

export { defaults as defaultSettings }

interface Call {
  readonly event: StoredEvent
  resolve(): void
  reject(error: unknown): void
}

/** A handler that ends when the test says so. */
export class HeldHandler {
  readonly calls: Call[] = []

  readonly handle = (event: StoredEvent): Promise<void> =>
    new Promise((resolve, reject) => {
      this.calls.push({ event, resolve, reject })
    })

  /** The offsets that were handed over so far. */
  get started(): unknown[] {
    return this.calls.map(({ event }) => event.data)
  }

  /** The call for an offset; `before` is how many others for the same offset came before it. */
  of(offset: number, before = 0): Call {
    const call = this.calls.filter(({ event }) => event.data === offset)[before]
    if (call === undefined) throw new Error(`Offset ${offset} was not handed over.`)
    return call
  }
}
