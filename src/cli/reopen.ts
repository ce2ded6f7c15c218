import type { Clock } from '../environment/index.ts'
import { reopenStore } from '../moving/index.ts'
import { styled, type Terminal } from './terminal.ts'

export async function reopen(url: string, { output }: Terminal, clock: Clock): Promise<void> {
  const wasMoved = await reopenStore(url, clock)
  const text = wasMoved ? `${styled('green', 'Reopened', output)} ${url}` : `${url} was not moved; nothing was changed`
  output.write(`${text}\n`)
}
