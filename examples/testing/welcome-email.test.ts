// #region setup
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { connectTest } from 'posthorn/testing'
import { subscribeWelcomeEmail, userSignedUp } from './welcome-email.ts'

// #endregion

// #region retry
test('a mail server that fails is asked again after a minute', async (context) => {
  const { post, clock } = await connectTest()
  context.after(() => post.close())
  const asked: string[] = []
  const subscription = subscribeWelcomeEmail(post, async (address) => {
    asked.push(address)
    if (asked.length === 1) throw new Error('421 Service not available')
  })
  await subscription.ready

  await post.publish(userSignedUp, { email: 'ada@example.com' })
  await clock.advance(0)
  assert.equal(asked.length, 1)

  await clock.advance(60_000)
  assert.deepEqual(asked, ['ada@example.com', 'ada@example.com'])
})
// #endregion

// #region dead-letter
test('after three failures the message is a dead letter', async (context) => {
  const { post, clock } = await connectTest()
  context.after(() => post.close())
  const subscription = subscribeWelcomeEmail(post, async () => {
    throw new Error('421 Service not available')
  })
  await subscription.ready

  await post.publish(userSignedUp, { email: 'ada@example.com' })
  await clock.advance(2 * 60_000)

  const [dead] = await post.admin.deadLetters(userSignedUp, 'welcome-email')
  assert.equal(dead?.reason, 'attempts')
  assert.equal(dead?.failures.length, 3)
})
// #endregion
