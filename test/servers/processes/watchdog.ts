/**
 * Outlives the process that started a Postgres server, by a moment: `node watchdog.ts <folder>`. Standard input tells it
 * the server's process, one number per line, 0 for none. Its end, which comes however the other process ends, has the
 * server killed and the folder removed.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'

const STEP_MS = 10
const PATIENCE_MS = 5_000

/** False once there is no such process. */
function signal(pid: number, name: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, name)
  } catch {
    return false
  }
}

/**
 * SIGQUIT has the server end its own processes, which SIGKILL would leave behind, and remove its pid file. The file tells
 * of the end even where nobody takes note of ended processes, as in containers without an init process.
 */
async function end(pid: number, pidFile: string): Promise<void> {
  signal(pid, 'SIGQUIT')
  for (let waitedMs = 0; waitedMs < PATIENCE_MS; waitedMs += STEP_MS) {
    if (!existsSync(pidFile) || !signal(pid, 0)) return
    await sleep(STEP_MS)
  }
  signal(pid, 'SIGKILL')
}

/** A killed server leaves a segment of shared memory, whose number is the last in the line for it in its pid file. */
async function freeSharedMemory(pidFile: string): Promise<void> {
  const text = await readFile(pidFile, 'utf8').catch(() => '')
  const segment = text.split('\n')[6]?.trim().split(/\s+/)[1]
  if (segment === undefined) return
  const { promise, resolve } = Promise.withResolvers<void>()
  execFile('ipcrm', ['-m', segment], () => resolve())
  await promise
}

const folder = process.argv[2]!
const pidFile = join(folder, 'data/postmaster.pid')
let pid = 0
for await (const line of createInterface({ input: process.stdin })) pid = Number(line)
if (pid !== 0) await end(pid, pidFile)
await freeSharedMemory(pidFile)
await rm(folder, { recursive: true, force: true, maxRetries: 5 })
