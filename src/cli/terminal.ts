import { styleText } from 'node:util'

type Style = Parameters<typeof styleText>[0]

/** Where a command says things: what it was asked for on standard output, and everything else on standard error. */
export interface Terminal {
  readonly output: NodeJS.WritableStream
  readonly log: NodeJS.WritableStream
}

export const processTerminal: Terminal = { output: process.stdout, log: process.stderr }

/** In colour where the stream is a terminal, unless NO_COLOR says otherwise. */
export function styled(style: Style, text: string, stream: NodeJS.WritableStream): string {
  return styleText(style, text, { stream })
}

/** Rows of a name and a number, the numbers below each other. */
export function table(rows: readonly (readonly [name: string, value: number])[]): string {
  const names = Math.max(...rows.map(([name]) => name.length))
  const values = rows.map(([, value]) => value.toLocaleString('en-US'))
  const width = Math.max(...values.map((value) => value.length))
  return rows.map(([name], place) => `  ${name.padEnd(names)}  ${values[place]!.padStart(width)}\n`).join('')
}
