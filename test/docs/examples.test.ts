/** Runs every example that has an `expected.txt` beside it, in an empty folder, and compares what it prints. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'

const EXAMPLES = join(import.meta.dirname, '..', '..', 'examples')
const TEST_TIMEOUT_MS = 60_000

/** One program of a transcript: its file, and what it prints line by line. A line `/.../` is a regular expression. */
interface Step {
  readonly file: string
  readonly lines: string[]
}

interface Ended {
  readonly output: string
  readonly errors: string
  /** The exit code, or the signal that ended it. */
  readonly end: number | NodeJS.Signals | null
  readonly wanted: number | NodeJS.Signals
}

function readTranscript(text: string): Step[] {
  const steps: Step[] = []
  for (const line of text.trimEnd().split('\n')) {
    const file = /^\$ node (\S+)$/.exec(line)?.[1]
    if (file !== undefined) steps.push({ file, lines: [] })
    else steps.at(-1)!.lines.push(line)
  }
  return steps
}

function matches(output: string, { lines }: Step): boolean {
  const found = output.trimEnd().split('\n')
  if (found.length !== lines.length) return false
  return lines.every((line, index) => {
    const pattern = /^\/(.+)\/$/.exec(line)?.[1]
    return pattern === undefined ? found[index] === line : new RegExp(`^${pattern}$`).test(found[index]!)
  })
}

/** Runs a program to its end. One that stays until it gets a signal gets it once it has printed what it should. */
async function run(path: string, folder: string, step: Step, children: ChildProcess[]): Promise<Ended> {
  const stays = (await readFile(path, 'utf8')).includes('closeOnSignals: true')
  const child = spawn(process.execPath, ['--conditions=posthorn-source', path], { cwd: folder })
  children.push(child)
  let output = ''
  let errors = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
    if (stays && output.endsWith('\n') && matches(output, step)) child.kill('SIGTERM')
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text
  })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ output, errors, end: signal ?? code, wanted: stays ? 'SIGTERM' : 0 }))
  })
}

async function check(folder: string, example: string, step: Step, children: ChildProcess[]): Promise<void> {
  const ended = await run(join(EXAMPLES, example, step.file), folder, step, children)
  if (!matches(ended.output, step)) assert.equal(ended.output.trimEnd(), step.lines.join('\n'), ended.errors)
  assert.equal(ended.end, ended.wanted, ended.errors)
}

const transcripts = (await readdir(EXAMPLES, { recursive: true })).filter((path) => path.endsWith('expected.txt'))

describe('examples print what their transcripts say', () => {
  for (const path of transcripts) {
    const example = join(path, '..')
    test(example, { timeout: TEST_TIMEOUT_MS }, async (context) => {
      const folder = await mkdtemp(join(tmpdir(), 'posthorn-example-'))
      const children: ChildProcess[] = []
      context.after(async () => {
        for (const child of children) child.kill('SIGKILL')
        await rm(folder, { recursive: true, force: true })
      })
      for (const step of readTranscript(await readFile(join(EXAMPLES, path), 'utf8'))) {
        await check(folder, example, step, children)
      }
    })
  }

  test('there are transcripts', () => assert.ok(transcripts.length > 5))
})
