import type { Clock } from '../environment/index.ts'
import { type MoveProgress, type MoveReport, moveStore } from '../moving/index.ts'
import { styled, type Terminal, table } from './terminal.ts'

export interface MigrateOptions {
  readonly from: string
  readonly to: string
  readonly json?: true
}

type Counts = MoveReport['moved']

const TITLES: Readonly<Record<keyof Counts, string>> = {
  topics: 'topics',
  partitions: 'partitions',
  batches: 'record batches',
  messages: 'messages',
  delayed: 'delayed messages',
  cancelled: 'cancelled messages',
  ids: 'remembered ids',
  subscriptions: 'subscriptions',
  returned: 'messages given back',
  setAside: 'messages set aside',
  deadLetters: 'dead letters',
  steps: 'results of steps',
}

/** Between two lines of progress. */
const PROGRESS_MS = 1_000

export async function migrate({ from, to, json }: MigrateOptions, terminal: Terminal, clock: Clock): Promise<void> {
  const report = await moveStore({ from, to, clock, onProgress: progressLog(terminal, clock) })
  terminal.output.write(json ? `${JSON.stringify(report)}\n` : describe(report, terminal))
  if (report.wasComplete) say(terminal, 'an earlier run had moved everything; nothing was changed')
  else say(terminal, `done; point every process to ${report.to}, and keep ${report.from} until all is well`)
}

function progressLog(terminal: Terminal, clock: Clock): (progress: MoveProgress) => void {
  let dueMs = clock.elapsedMs() + PROGRESS_MS
  return ({ moved, messages }) => {
    if (clock.elapsedMs() < dueMs) return
    dueMs = clock.elapsedMs() + PROGRESS_MS
    say(terminal, `${moved.toLocaleString('en-US')} of ${messages.toLocaleString('en-US')} messages`)
  }
}

function describe({ from, to, wasComplete, finishedAt, moved }: MoveReport, { output }: Terminal): string {
  const names = Object.keys(TITLES) as (keyof Counts)[]
  const rows = names.map((name) => [TITLES[name], moved[name]] as const)
  const title = wasComplete ? `Moved at ${finishedAt}` : 'Moved'
  return `${styled('green', title, output)} from ${from} to ${to}:\n${table(rows)}`
}

function say({ log }: Terminal, text: string): void {
  log.write(`${styled('dim', 'migrate', log)} ${text}\n`)
}
