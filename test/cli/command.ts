/** Runs the command as a process, as users do. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'

const MAIN = join(import.meta.dirname, '../../src/cli/main.ts')

export interface Ended {
  /** Undefined when a signal ended it. */
  readonly code: number | undefined
  readonly output: string
  readonly log: string
}

interface PosthornOptions {
  readonly environment?: Readonly<Record<string, string>>
  readonly preload?: string
  /** When somebody presses Ctrl-C. */
  readonly interrupted?: Promise<unknown>
}

export async function posthorn(parameters: readonly string[], options: PosthornOptions = {}): Promise<Ended> {
  const { environment = {}, preload, interrupted } = options
  const flags = ['--conditions=posthorn-source', ...(preload === undefined ? [] : ['--import', preload])]
  const env = { ...process.env, ...environment }
  const child = spawn(process.execPath, [...flags, MAIN, ...parameters], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  void interrupted?.then(() => child.kill('SIGINT'))
  const [output, log] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  return { code: child.exitCode ?? undefined, output, log }
}

export function migrate(file: string, to: string, ...more: string[]): Promise<Ended> {
  return posthorn(['migrate', '--from', `sqlite:${file}`, '--to', to, ...more])
}
