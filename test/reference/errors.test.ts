/** `src/errors.ts` and its page in the reference say the same, and every code is raised by something. */
import assert from 'node:assert/strict'
import { glob, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { type ErrorCode, errorKinds, PosthornError } from 'posthorn'

const ROOT = join(import.meta.dirname, '..', '..')
const CODE = /'(POSTHORN_[A-Z_]+)'/g

const codes = Object.keys(errorKinds) as ErrorCode[]
const page = await readFile(join(ROOT, 'docs', 'reference', 'errors.md'), 'utf8')
const sections = new Map(
  page
    .split(/^## /m)
    .slice(1)
    .map((section) => [section.slice(0, section.indexOf('\n')), section] as const),
)

async function codesInSource(): Promise<Set<string>> {
  const found = new Set<string>()
  for await (const file of glob('src/**/*.ts', { cwd: ROOT })) {
    if (file === join('src', 'errors.ts')) continue
    for (const [, code] of (await readFile(join(ROOT, file), 'utf8')).matchAll(CODE)) found.add(code!)
  }
  return found
}

describe('the reference of errors', () => {
  test('describes every code once, in the order of the source, and no other', () => {
    assert.deepEqual([...sections.keys()], codes)
    assert.equal(page.match(/^## /gm)!.length, codes.length)
  })

  for (const code of codes) {
    test(`says of ${code} when it happens, what to do, and whether to try again`, () => {
      const section = sections.get(code) ?? ''
      assert.match(section, /^- \*\*When:\*\* /m)
      assert.match(section, /^- \*\*What to do:\*\* /m)
      const retryable = new PosthornError(code).retryable ? 'yes' : 'no'
      assert.match(section, new RegExp(`^- \\*\\*Retryable:\\*\\* ${retryable}\\b`, 'm'))
    })
  }

  test('has no code that nothing raises, and the source raises none that is not there', async () => {
    assert.deepEqual([...(await codesInSource())].sort(), [...codes].sort())
  })
})
